// The page of a sweep: its table is sorted by the heads, and any figure is drawn over any knob that has numbers.
(() => {
const DATA = JSON.parse(document.getElementById('data').textContent);
const COLOURS = ['--c0', '--c1', '--c2', '--c3', '--c4', '--c5', '--c6'].map(name => `var(${name})`);
const WIDE = 640, TALL = 320, LEFT = 56, BOTTOM = 40, EDGE = 14;
const at = id => document.getElementById(id);
const others = Object.keys(DATA.rows[0]?.knobs ?? {});
const few = key => new Set(DATA.rows.map(row => row.knobs[key])).size <= COLOURS.length;
const shown = { x: DATA.knobs[0], y: 0, colour: others.find(key => key !== DATA.knobs[0] && few(key)) ?? '' };

function chooser(title, options, key) {
  const select = element('select', { id: `by-${key}` }, ...options.map(([value, words]) => element('option', { value }, words)));
  select.value = shown[key];
  select.addEventListener('change', () => { shown[key] = key === 'y' ? Number(select.value) : select.value; draw(); });
  return element('label', {}, title, select);
}

function scale(values, from, to) { // a function of a value, and marks; by factors where values span more than thirty
  const low = Math.min(...values), high = Math.max(...values), byFactor = low > 0 && high / low > 30;
  const moved = byFactor ? Math.log10 : value => value;
  const span = moved(high) - moved(low) || 1;
  const place = value => from + (to - from) * (high === low ? 0.5 : (moved(value) - moved(low)) / span);
  if (!byFactor) return { place, marks: high === low ? [low] : ticks(low, high) };
  const powers = Array.from({ length: 40 }, (_, i) => 10 ** (i - 20)).filter(value => value >= low && value <= high);
  return { place, marks: powers.length > 1 ? powers : [low, high] };
}

function draw() {
  const rows = DATA.rows.filter(row => typeof row.knobs[shown.x] === 'number' && row.figures[shown.y] !== null);
  if (!rows.length) return at('scatter').replaceChildren(element('p', { class: 'note' }, 'No job has this figure.'));
  const x = scale(rows.map(row => row.knobs[shown.x]), LEFT + EDGE, WIDE - EDGE);
  const y = scale(rows.map(row => row.figures[shown.y]), TALL - BOTTOM - EDGE, EDGE);
  const name = DATA.figures[shown.y];
  const svg = drawn('svg', { viewBox: `0 0 ${WIDE} ${TALL}`, role: 'img', 'aria-label': `${name} over ${shown.x}, ${rows.length} jobs` });
  for (const value of x.marks) {
    svg.append(drawn('line', { class: 'frame', x1: x.place(value), x2: x.place(value), y1: 4, y2: TALL - BOTTOM }),
      drawn('text', { x: x.place(value), y: TALL - BOTTOM + 15, 'text-anchor': 'middle' }, String(Number(value.toPrecision(6)))));
  }
  for (const value of y.marks) {
    svg.append(drawn('line', { class: 'frame', x1: LEFT, x2: WIDE, y1: y.place(value), y2: y.place(value) }),
      drawn('text', { x: LEFT - 6, y: y.place(value) + 4, 'text-anchor': 'end' }, String(Number(value.toPrecision(6)))));
  }
  svg.append(drawn('text', { x: (LEFT + WIDE) / 2, y: TALL - 6, 'text-anchor': 'middle' }, shown.x),
    drawn('text', { transform: `translate(12 ${(TALL - BOTTOM) / 2}) rotate(-90)`, 'text-anchor': 'middle' }, `${name} (%)`));
  const colours = [...new Set(rows.map(row => row.knobs[shown.colour]))];
  rows.forEach(row => svg.append(dot(row, x, y, COLOURS[colours.indexOf(row.knobs[shown.colour]) % COLOURS.length])));
  const key = shown.colour ? colours.map((value, i) => element('span', {},
    element('i', { class: 'swatch', style: `background:${COLOURS[i % COLOURS.length]}` }), `${shown.colour}=${value ?? '–'}`)) : [];
  at('scatter').replaceChildren(element('div', { class: 'key' }, ...key), element('figure', { class: 'chart', style: 'max-width:44rem' }, svg));
}

function dot(row, x, y, colour) {
  const words = `#${row.number} ${row.said}: ${row.figures[shown.y].toFixed(2)} %`;
  const look = { cx: x.place(row.knobs[shown.x]), cy: y.place(row.figures[shown.y]), r: row.best ? 7 : 5, fill: colour };
  return drawn('circle', { ...look, 'fill-opacity': 0.8, stroke: row.best ? 'var(--ink)' : 'none', 'stroke-width': 2 },
    drawn('title', {}, words));
}

makeSortable(at('table'), at('lines'));
if (DATA.knobs.length) {
  document.querySelectorAll('.needs-script').forEach(part => { part.hidden = false; });
  const knobs = DATA.knobs.map(key => [key, key]);
  at('choosers').append(chooser('Across', knobs, 'x'), chooser('Upwards', DATA.figures.map((name, i) => [i, name]), 'y'),
    chooser('Colour', [['', 'one'], ...others.map(key => [key, key])], 'colour'));
  draw();
}
})();
