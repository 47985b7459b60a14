// The page of all runs: filters, panels by OOD set, comparison. Every text from a run becomes a text node.
(() => {
const DATA = JSON.parse(document.getElementById('data').textContent);
const MOST = 4, LETTERS = 'ABCD', PANELS = 40, IMAGES = 2000, ROWS = 24;
const COLOURS = ['--c0', '--c1', '--c2', '--c3', '--c4', '--c5', '--c6'].map(name => `var(${name})`);
const at = id => document.getElementById(id);
const table = at('table'), lines = at('lines');
const rows = [...lines.rows].map(line => ({ line, ...DATA.rows[line.dataset.row] }));
const methods = [...new Set(DATA.rows.map(row => row.facts.method).filter(Boolean))].sort();
const colourOf = method => COLOURS[methods.indexOf(method) % COLOURS.length];
let chosen = []; // rows, in the order in which they were ticked
let scoreOf = new Map(), setShown = '', pairShown = [0, 1];

const percent = value => value === null || value === undefined ? '–' : value.toFixed(2);
const isBaseOf = (row, score) => score || (row.evaluation.own ?? '');

// ---- filters ----

const filters = [...document.querySelectorAll('[data-filter]')];

function wanted(row) {
  const text = at('search').value.trim().toLowerCase();
  const value = { ...row.facts, ...row.evaluation, state: row.line.dataset.state };
  const fits = filters.every(filter => fitsTo(filter.value, String(value[filter.dataset.filter])));
  return fits && (text === '' || row.line.textContent.toLowerCase().includes(text));
}

const fitsTo = (wish, value) => wish === '' || (wish.startsWith('!') ? value !== wish.slice(1) : value === wish);

function applyFilters() {
  rows.forEach(row => { row.line.hidden = !wanted(row); });
  const value = Object.fromEntries(filters.map(filter => [filter.dataset.filter, filter.value]));
  for (const line of at('reported').rows) {
    const fits = (value.method === '' || line.dataset.method === value.method)
      && (value.data === '' || line.dataset.data === value.data);
    line.hidden = !fits || value.scale !== '' || value.state !== '';
  }
  const shown = rows.filter(row => !row.line.hidden);
  at('count').textContent = `${shown.length} of ${rows.length} lines, ${new Set(shown.map(row => row.run)).size} runs`;
  showSets();
}

function showColumns() {
  const shown = new Set([...document.querySelectorAll('[data-column]:checked')].map(box => box.dataset.column));
  table.querySelectorAll('[data-score]').forEach(cell => { cell.hidden = !shown.has(cell.dataset.score); });
}

// ---- FPR95 by OOD set ----

const LANE = 17, LEFT = 62, WIDE = 280, ROOM = WIDE - LEFT - 12;
const along = value => LEFT + ROOM * value / 100;

function showSets() {
  const score = at('set-score').value;
  const shown = rows.filter(row => !row.line.hidden && row.evaluation.sets);
  const sets = new Map();
  for (const row of shown) {
    for (const [name, known] of Object.entries(row.evaluation.sets)) {
      const pair = known.scores[isBaseOf(row, score)];
      if (!pair || pair[0] === null) continue;
      if (!sets.has(name)) sets.set(name, { name, title: known.title, standsFor: known.for, dots: [] });
      sets.get(name).dots.push({ row, value: pair[0], score: isBaseOf(row, score) });
    }
  }
  const panels = [...sets.values()].sort((a, b) => b.dots.length - a.dots.length);
  const lanes = methods.filter(method => panels.some(panel => panel.dots.some(dot => dot.row.facts.method === method)));
  at('set-panels').replaceChildren(...panels.slice(0, PANELS).map(panel => setPanel(panel, lanes, score)));
  const more = panels.length > PANELS ? [element('span', {}, `the ${PANELS} sets that most runs have, of ${panels.length}`)] : [];
  at('set-key').replaceChildren(...lanes.map(method =>
    element('span', {}, element('i', { class: 'swatch', style: `background:${colourOf(method)}` }), method)), ...more);
}

function setPanel(panel, lanes, score) {
  const tall = lanes.length * LANE + 20;
  const words = panel.dots.map(dot => `${dot.row.run}, ${dot.score}: ${percent(dot.value)} %`).slice(0, 40).join('; ');
  const svg = drawn('svg', { viewBox: `0 0 ${WIDE} ${tall}`, role: 'img', 'aria-label': `FPR95 on ${panel.title}. ${words}` });
  for (const value of [0, 25, 50, 75, 100]) {
    svg.append(drawn('line', { class: 'frame', x1: along(value), x2: along(value), y1: 2, y2: tall - 18 }));
    svg.append(drawn('text', { x: along(value), y: tall - 5, 'text-anchor': 'middle' }, String(value)));
  }
  lanes.forEach((method, lane) => {
    const middle = lane * LANE + LANE / 2 + 2;
    svg.append(drawn('text', { x: LEFT - 8, y: middle + 4, 'text-anchor': 'end' }, method.slice(0, 9)));
    marksOf(panel, method, score).forEach(mark => svg.append(stroke(mark, middle)));
    panel.dots.filter(dot => dot.row.facts.method === method).forEach(dot => svg.append(dotOf(dot, middle)));
  });
  const note = panel.standsFor ? element('small', {}, ` for ${panel.standsFor}`) : null;
  return element('figure', { class: 'chart' }, element('figcaption', {}, panel.title, note), svg);
}

function marksOf(panel, method, score) { // what papers report, on data that some shown run has
  const of = method === 'imported' ? 'ce' : method;
  const data = new Set(panel.dots.map(dot => dot.row.facts.data));
  const scores = new Set(panel.dots.filter(dot => dot.row.facts.method === method).map(dot => dot.score));
  return DATA.references
    .filter(row => row.method === of && data.has(row.data) && (score ? row.score === score : scores.has(row.score)))
    .flatMap(row => [[panel.name, false], [panel.standsFor, true]]
      .filter(([name]) => name && row.sets[name] && row.sets[name][0] !== null)
      .map(([name, stands]) => ({ row, name, stands, value: row.sets[name][0] })));
}

function stroke(mark, middle) {
  const words = `${mark.row.paper}, ${mark.row.label} on ${mark.name}: ${percent(mark.value)} %`;
  return drawn('line', {
    x1: along(mark.value), x2: along(mark.value), y1: middle - 8, y2: middle + 8, stroke: 'var(--ink)',
    'stroke-width': 1.6, 'stroke-dasharray': mark.stands ? '2.5 2' : null,
  }, drawn('title', {}, words));
}

function dotOf(dot, middle) {
  const place = chosen.indexOf(dot.row);
  const words = `${dot.row.run}, ${dot.score}: ${percent(dot.value)} %`;
  const look = { cx: along(dot.value), cy: middle, r: place < 0 ? 4 : 6, fill: colourOf(dot.row.facts.method) };
  const circle = drawn('circle', { ...look, 'fill-opacity': place < 0 ? 0.65 : 1, stroke: place < 0 ? 'none' : 'var(--ink)' },
    drawn('title', {}, words));
  if (place < 0) return circle;
  const letter = drawn('text', { x: along(dot.value), y: middle - 8, 'text-anchor': 'middle' }, LETTERS[place]);
  return drawn('g', {}, circle, letter);
}

// ---- comparison ----

function choose(row, ticked) {
  chosen = ticked ? [...chosen, row] : chosen.filter(other => other !== row);
  if (chosen.length > MOST) dropTick(chosen.shift());
  if (ticked) scoreOf.set(row, row.evaluation.own);
  pairShown = [0, 1];
  rows.forEach(other => other.line.classList.toggle('chosen', chosen.includes(other)));
  showSets();
  showComparison();
}

function dropTick(row) {
  row.line.querySelector('.pick').checked = false;
}

const letter = place => element('span', { class: 'letter', style: `background:${COLOURS[place]}` }, LETTERS[place]);
const curvesOf = row => DATA.curves[row.run] ?? {};
const curveOf = (row, set) => curvesOf(row)[set]?.scores[scoreOf.get(row)];

function showComparison() {
  at('compare-hint').hidden = chosen.length > 1;
  const body = at('compare-body');
  if (chosen.length < 2) return body.replaceChildren();
  const sets = commonSets();
  if (!sets.some(set => set.name === setShown)) setShown = sets[0]?.name ?? '';
  const there = comparableSets(sets);
  const left = element('div', {}, ...figuresTable(sets), ...agreement(there));
  const shown = there.find(set => set.name === setShown);
  const right = element('div', {}, ...(sets.length ? pictures(sets) : []), ...(shown ? imagesOf(shown, ...pairShown) : []));
  body.replaceChildren(chosenList(), element('div', { class: 'side' }, left, right));
}

function commonSets() { // OOD sets that at least two of the chosen have, those that all have first
  const counts = new Map();
  chosen.forEach(row => Object.entries(row.evaluation.sets).forEach(([name, known]) => {
    const found = counts.get(name) ?? { name, title: known.title, number: 0 };
    counts.set(name, { ...found, number: found.number + 1 });
  }));
  return [...counts.values()].filter(set => set.number > 1).sort((a, b) => b.number - a.number);
}

function chooser(name, options, value, then) {
  const select = element('select', {}, ...options.map(([key, title]) => element('option', { value: key }, title)));
  select.value = value;
  select.addEventListener('change', () => { then(select.value); rebuilt(name); });
  select.dataset.name = name;
  return element('label', {}, name, select);
}

function rebuilt(name) { // the same control keeps the focus
  showComparison();
  [...at('compare-body').querySelectorAll('select')].find(select => select.dataset.name === name)?.focus();
}

function chosenList() {
  const list = element('div', { class: 'controls' });
  chosen.forEach((row, place) => {
    const scores = Object.keys(row.evaluation.means);
    const all = scores.length ? scores : [row.evaluation.own];
    const control = chooser(`score of ${LETTERS[place]}`, all.map(score => [score, score]), scoreOf.get(row), score => scoreOf.set(row, score));
    const about = `${row.run}: ${row.evaluation.protocol} on ${row.evaluation.ood_data}`;
    const drop = element('button', { type: 'button', 'aria-label': `leave out ${row.run}` }, '×');
    drop.addEventListener('click', () => { dropTick(row); choose(row, false); });
    list.append(element('div', {}, element('div', { class: 'key' }, element('span', {}, letter(place), about, drop)), control));
  });
  return list;
}

function figuresTable(sets) {
  const head = element('tr', {}, element('th', { scope: 'col' }, 'OOD set'),
    ...['FPR95', 'AUROC'].flatMap(metric => chosen.map((_, place) => element('th', { scope: 'col', class: place ? null : 'mean' }, `${metric} `, letter(place)))));
  const pairs = set => chosen.map(row => row.evaluation.sets[set.name]?.scores[scoreOf.get(row)] ?? [null, null]);
  const body = sets.map(set => figuresLine(set.title, pairs(set)));
  const all = sets.filter(set => pairs(set).every(pair => pair[0] !== null && pair[1] !== null));
  const votes = [...new Set(all.map(voteOf))];
  const means = chosen.map((_, place) => [0, 1].map(metric => mean(votes.map(vote =>
    mean(all.filter(set => voteOf(set) === vote).map(set => pairs(set)[place][metric]))))));
  if (all.length) body.push(figuresLine(`mean, ${votes.length} ${votes.length === 1 ? 'vote' : 'votes'}`, means));
  const note = 'The mean is over the sets that all have; sets of the same photographs share a vote. Bold: the best.';
  return [element('h3', {}, 'Figures'),
    scrolling('figures side by side', element('table', {}, element('thead', {}, head), element('tbody', {}, ...body))),
    element('p', { class: 'note' }, note)];
}

const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length;
const voteOf = set => chosen.map(row => row.evaluation.sets[set.name]?.vote).find(Boolean);

function figuresLine(title, pairs) {
  const line = element('tr', {}, element('th', { scope: 'row' }, title));
  [0, 1].forEach(metric => {
    const values = pairs.map(pair => pair[metric]), known = values.filter(value => value !== null);
    const best = metric ? Math.max(...known) : Math.min(...known);
    values.forEach((value, place) => {
      const bold = known.length > 1 && value === best && known.some(other => other !== best);
      line.append(element('td', { class: place ? null : 'mean' }, bold ? element('b', {}, percent(value)) : percent(value)));
    });
  });
  return line;
}

function scrolling(name, inner) {
  return element('div', { class: 'scroll', role: 'region', tabindex: 0, 'aria-label': name }, inner);
}

function pictures(sets) {
  const control = chooser('OOD set', sets.map(set => [set.name, set.title]), setShown, name => { setShown = name; });
  const there = chosen.map((row, place) => ({ row, place, curve: curveOf(row, setShown) })).filter(each => each.curve);
  const title = element('h3', {}, 'Scores of every image');
  if (!there.length) return [title, element('div', { class: 'controls' }, control), element('p', { class: 'note' }, 'No scores per image are at hand for this set and these scores.')];
  return [title, element('div', { class: 'controls' }, control), histograms(there), rocCurves(there)];
}

const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));

function frame(label, wide, tall) {
  return drawn('svg', { viewBox: `0 0 ${wide} ${tall}`, role: 'img', 'aria-label': label });
}

function histograms(there) {
  const same = new Set(there.map(each => scoreOf.get(each.row))).size === 1;
  const scaled = (each, x) => same ? x : (x - each.curve.tau) / (each.curve.sd || 1);
  const spans = there.map(each => each.curve.edges.map(edge => scaled(each, edge)));
  const low = Math.min(...spans.map(span => span[0])), high = Math.max(...spans.map(span => span[1]));
  const wide = 420, lane = 78, tall = there.length * lane + 20, x = value => 8 + (wide - 16) * (value - low) / (high - low || 1);
  const svg = frame(`histograms of ID and OOD scores of ${there.map(each => LETTERS[each.place]).join(', ')}`, wide, tall);
  there.forEach((each, i) => {
    const bottom = (i + 1) * lane, colour = COLOURS[each.place], top = Math.max(each.curve.id[0], each.curve.ood[0]);
    const [first, last] = spans[i];
    for (const kind of ['ood', 'id']) {
      const [peak, packed] = each.curve[kind], heights = [...bytes(packed)].map(height => height / 255 * peak / top);
      const step = (last - first) / heights.length;
      const path = heights.map((height, j) => `V${(bottom - 64 * height).toFixed(1)}H${x(first + (j + 1) * step).toFixed(1)}`).join('');
      const look = kind === 'ood' ? { fill: colour, 'fill-opacity': 0.35, stroke: 'none' } : { fill: 'none', stroke: colour, 'stroke-width': 1.6 };
      svg.append(drawn('path', { d: `M${x(first).toFixed(1)} ${bottom}${path}V${bottom}`, ...look }));
    }
    const tau = x(scaled(each, each.curve.tau));
    svg.append(drawn('line', { x1: tau, x2: tau, y1: bottom - 66, y2: bottom, stroke: 'var(--ink)', 'stroke-dasharray': '4 3' }));
    svg.append(drawn('line', { class: 'frame', x1: 8, x2: wide - 8, y1: bottom, y2: bottom }));
    svg.append(drawn('text', { x: 8, y: bottom - 54, style: `fill:${colour};font-weight:700` }, LETTERS[each.place]));
  });
  const foot = tall - 5;
  for (const value of ticks(low, high)) {
    svg.append(drawn('text', { x: x(value), y: foot, 'text-anchor': 'middle' }, String(value)));
  }
  const unit = same ? `the score ${scoreOf.get(there[0].row)}` : 'the score less its threshold, in standard deviations of its ID scores';
  const note = `Across: ${unit}; larger = more in-distribution. Line: ID. Filled: OOD. Dashed: the threshold that accepts 95 % of ID; OOD to the right of it is accepted.`;
  return element('figure', { class: 'chart' }, element('figcaption', {}, 'Histograms, on one axis'), svg, element('p', { class: 'note' }, note));
}

function rocCurves(there) {
  const side = 270, left = 40, x = value => left + side * value, y = value => 8 + side * (1 - value);
  const svg = frame(`ROC curves of ${there.map(each => LETTERS[each.place]).join(', ')}`, side + left + 110, side + 46);
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(drawn('line', { class: 'frame', x1: x(value), x2: x(value), y1: y(0), y2: y(1) }),
      drawn('line', { class: 'frame', x1: x(0), x2: x(1), y1: y(value), y2: y(value) }),
      drawn('text', { x: x(value), y: y(0) + 15, 'text-anchor': 'middle' }, String(100 * value)),
      drawn('text', { x: left - 6, y: y(value) + 4, 'text-anchor': 'end' }, String(100 * value)));
  }
  svg.append(drawn('line', { x1: x(0), x2: x(1), y1: y(0.95), y2: y(0.95), stroke: 'var(--quiet)', 'stroke-dasharray': '2 3' }));
  there.forEach((each, i) => {
    const accepted = [...bytes(each.curve.roc)];
    const points = accepted.map((share, j) => `${x(share / 255).toFixed(1)},${y(j / (accepted.length - 1)).toFixed(1)}`);
    points.push(`${x(1)},${y(1)}`);
    svg.append(drawn('polyline', { points: points.join(' '), fill: 'none', stroke: COLOURS[each.place], 'stroke-width': 2 }));
    svg.append(drawn('text', { x: x(1) + 12, y: 24 + 18 * i, style: `fill:${COLOURS[each.place]};font-weight:700` }, LETTERS[each.place]));
  });
  svg.append(drawn('text', { x: x(0.5), y: side + 42, 'text-anchor': 'middle' }, 'OOD accepted (%)'),
    drawn('text', { x: 0, y: 0, transform: `translate(10 ${y(0.5)}) rotate(-90)`, 'text-anchor': 'middle' }, 'ID accepted (%)'));
  return element('figure', { class: 'chart' }, element('figcaption', {}, 'ROC curves'), svg);
}

// ---- what one accepts and the other rejects ----

function comparableSets(sets) {
  const known = [...sets, { name: 'id', title: 'ID' }];
  return known.map(set => ({ ...set, votes: votesOf(set.name, ...pairShown) })).filter(set => set.votes);
}

function agreement(there) {
  const title = element('h3', {}, 'What one accepts and the other rejects');
  const control = chosen.length > 2 ? [element('div', { class: 'controls' }, pairChooser())] : [];
  const none = 'Nothing to say image by image: these two have no scores of the same images at hand.';
  return [title, ...control, ...(there.length ? countsTable(there, ...pairShown) : [element('p', { class: 'note' }, none)])];
}

function pairChooser() {
  const pairs = chosen.flatMap((_, a) => chosen.map((_, b) => [a, b])).filter(([a, b]) => a < b);
  const options = pairs.map(pair => [pair.join(), pair.map(place => LETTERS[place]).join(' and ')]);
  return chooser('Two of them', options, pairShown.join(), value => { pairShown = value.split(',').map(Number); });
}

function votesOf(set, a, b) { // per sampled image, whether each of the two accepts it; null where images differ
  const [one, other] = [a, b].map(place => chosen[place]);
  const first = curvesOf(one)[set], second = curvesOf(other)[set];
  const mine = curveOf(one, set), theirs = curveOf(other, set);
  if (!mine || !theirs || first.images !== second.images) return null;
  const number = Math.min(first.n, IMAGES);
  return [mine, theirs].map(curve => bits(curve.accepts, number));
}

function bits(text, number) {
  const packed = bytes(text);
  return Array.from({ length: number }, (_, i) => packed[i >> 3] >> (7 - (i & 7)) & 1);
}

const KINDS = [[1, 1, 'both accept'], [1, 0, 'only {a} accepts'], [0, 1, 'only {b} accepts'], [0, 0, 'both reject']];
const shades = (a, b) => ['var(--quiet)', COLOURS[a], COLOURS[b], 'var(--line)'];
const named = (words, a, b) => words.replace('{a}', LETTERS[a]).replace('{b}', LETTERS[b]);
const isKind = ([first, second], [p, q]) => (_, i) => first[i] === p && second[i] === q;

function countsTable(sets, a, b) {
  const head = element('tr', {}, element('th', { scope: 'col' }, 'set'), element('th', { scope: 'col' }, 'images'),
    ...KINDS.map(([, , words]) => element('th', { scope: 'col' }, `${named(words, a, b)} (%)`)), element('th', { scope: 'col', class: 'text' }, 'shares'));
  const body = sets.map(set => {
    const number = set.votes[0].length, counts = KINDS.map(kind => set.votes[0].filter(isKind(set.votes, kind)).length);
    const bar = element('div', { class: 'bar2' }, ...counts.map((count, i) =>
      element('i', { style: `width:${100 * count / number}%;background:${shades(a, b)[i]}` })));
    const whole = curvesOf(chosen[a])[set.name].n, of = whole > number ? `${number} of ${whole}` : String(number);
    return element('tr', {}, element('th', { scope: 'row' }, set.title), element('td', {}, of),
      ...counts.map(count => element('td', { title: `${count} images` }, (100 * count / number).toFixed(1))), element('td', {}, bar));
  });
  const note = 'Each score rejects below the threshold that accepts 95 % of its own ID images. Of sets of more than 2,000 images, 2,000 evenly taken.';
  return [scrolling('agreement by set', element('table', {}, element('thead', {}, head), element('tbody', {}, ...body))),
    element('p', { class: 'note' }, note)];
}

function imagesOf(set, a, b) {
  const sheet = DATA.sheets[curvesOf(chosen[a])[set.name].images];
  return KINDS.slice(1, 3).flatMap(kind => {
    const title = element('h3', {}, `${set.title}: ${named(kind[2], a, b)}`);
    const found = set.votes[0].map((_, i) => i).filter(i => isKind(set.votes, kind)(null, i));
    if (!found.length) return [title, element('p', { class: 'note' }, 'None.')];
    return [title, ...(sheet ? [thumbnails(sheet, found, set)] : []), rowNumbers(found, set, a)];
  });
}

function thumbnails(sheet, found, set) {
  const shown = sheet.places.map((place, i) => [place, i]).filter(([place]) => found.includes(place));
  if (!shown.length) return element('p', { class: 'note' }, `None of the ${sheet.places.length} images of this set that the page holds.`);
  const source = new Image(), grid = element('div', { class: 'sheets' });
  const pictures = shown.map(([place, i]) => {
    const canvas = element('canvas', { width: sheet.side, height: sheet.side, role: 'img', 'aria-label': `image ${place} of ${set.title}` });
    return [canvas, i];
  });
  grid.append(...pictures.map(([canvas]) => canvas));
  source.addEventListener('load', () => pictures.forEach(([canvas, i]) => {
    const left = sheet.side * (i % sheet.columns), top = sheet.side * Math.floor(i / sheet.columns);
    canvas.getContext('2d').drawImage(source, left, top, sheet.side, sheet.side, 0, 0, sheet.side, sheet.side);
  }));
  source.src = `data:image/jpeg;base64,${sheet.jpeg}`;
  return element('div', {}, element('p', { class: 'note' }, `Those of ${sheet.places.length} evenly taken images of the set.`), grid);
}

function rowNumbers(found, set, a) { // rows of scores/SET.npz, as farout.report.overview.curves took them
  const whole = curvesOf(chosen[a])[set.name].n, number = set.votes[0].length;
  const row = place => Math.floor(place * (whole - 1) / Math.max(1, number - 1));
  const more = found.length > ROWS ? ` and ${found.length - ROWS} more` : '';
  return element('p', { class: 'note' }, `Rows of scores/${set.name}.npz: ${found.slice(0, ROWS).map(row).join(', ')}${more}.`);
}

// ---- begin ----

makeSortable(table, lines);
document.querySelectorAll('.needs-script').forEach(part => { part.hidden = false; });
filters.forEach(filter => filter.addEventListener('change', applyFilters));
at('search').addEventListener('input', applyFilters);
at('set-score').addEventListener('change', showSets);
at('columns').addEventListener('change', showColumns);
at('reset').addEventListener('click', () => {
  filters.forEach(filter => { filter.value = ''; });
  at('search').value = '';
  applyFilters();
});
rows.forEach(row => row.line.querySelector('.pick').addEventListener('change', event => choose(row, event.target.checked)));
if (at('by-protocol').querySelector('[value="!plain"]')) at('by-protocol').value = '!plain'; // the papers' own first
showColumns();
applyFilters();
})();
