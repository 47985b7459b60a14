'use strict';
// What the pages with a big table share: elements, axes, and sorting by the buttons of the head.

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  return filled(made, attributes, children);
}

function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
  made.append(...children.filter(child => child !== null));
  return made;
}

function ticks(low, high) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough || 1));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(size => size >= rough) ?? power;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high && found.length < 12; value += step) found.push(Number(value.toPrecision(6)));
  return found;
}

function leafHeads(table) {
  const [top, below] = [...table.tHead.rows].map(row => [...row.cells]);
  return top.flatMap(cell => cell.rowSpan > 1 || !below ? [cell] : below.splice(0, cell.colSpan));
}

function makeSortable(table, body) { // lines that are equal keep the order in which they stood at first
  const lines = [...body.rows];
  leafHeads(table).forEach((head, column) => {
    const group = head.dataset.score ? `${head.dataset.score}: ` : '';
    const button = element('button', { type: 'button', 'aria-label': `sort by ${group}${head.textContent}` });
    button.append(...head.childNodes);
    button.addEventListener('click', () => sortBy(table, body, lines, head, column));
    head.append(button);
  });
}

function sortBy(table, body, lines, head, column) {
  const descending = head.getAttribute('aria-sort') === 'ascending';
  leafHeads(table).forEach(other => other.removeAttribute('aria-sort'));
  head.setAttribute('aria-sort', descending ? 'descending' : 'ascending');
  const keyed = lines.map(line => ({ line, key: sortKey(line.cells[column]) }));
  keyed.sort((a, b) => compared(a.key, b.key, descending ? -1 : 1));
  body.append(...keyed.map(({ line }) => line));
}

function sortKey(cell) {
  if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
  const text = cell.textContent.trim();
  return text === '–' || text === '' ? null : text;
}

function compared(a, b, sign) { // what is absent comes last, either way
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === 'number' && typeof b === 'number') return sign * (a - b);
  return sign * String(a).localeCompare(String(b), 'en', { numeric: true });
}
