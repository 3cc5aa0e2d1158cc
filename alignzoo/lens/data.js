'use strict';
// What the page shows, from the text that pack.py wrote: typed arrays, read where they lie.

async function unpacked(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  const buffer = await new Response(stream).arrayBuffer();
  const size = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  const kinds = { u2: Uint16Array, u4: Uint32Array, f4: Float32Array };
  const arrays = {};
  let at = 4 + size;
  for (const [name, kind, n] of head.arrays) {
    arrays[name] = new kinds[kind](buffer, at, n);
    at += Math.ceil(arrays[name].byteLength / 4) * 4;
  }
  head.methods.forEach((method, m) => method.distributions.forEach((_, d) => {
    const first = arrays[`t${m}.0`], own = arrays[`t${m}.${d}`];
    // What differs from the first distribution may need fewer bytes than the whole.
    if (d) arrays[`t${m}.${d}`] = Uint32Array.from(own, (x, i) => x ^ first[i]);
  }));
  return { ...head, arrays };
}

// One line of every response: a value per token, what it is, and where its colours end.
function columnOf(data, method, quantity, shift) {
  const key = `${method}.${quantity}.${shift}`;
  data.known ??= {};
  if (data.known[key]) return data.known[key];
  const said = data.methods[method], signal = said.signals[quantity];
  const late = signal.at.includes(shift) ? shift : signal.at[0];
  const from = data.arrays[`v${method}.${quantity}`], starts = data.arrays.starts;
  const values = new Float32Array(data.arrays.tokens.length);
  for (let r = 0; r + 1 < starts.length; r++)
    for (let i = starts[r]; i < starts[r + 1]; i++) values[i] = from[i + r + late];
  data.known[key] = finished({ name: signal.name, method: said.name, unit: signal.unit, values, late });
  return data.known[key];
}

// One signal of two methods has one scale, so that equal colours are equal values.
function scaled(columns) {
  if (columns.length < 2 || columns[0].name !== columns[1].name || columns[0].unit !== columns[1].unit) return columns;
  const limit = Math.max(columns[0].limit, columns[1].limit);
  return columns.map((c) => ({ ...c, limit }));
}

function differenceOf(one, two) {
  const values = one.values.map((x, i) => x - two.values[i]);
  return finished({ name: 'difference', method: '', unit: one.unit, values, late: one.late });
}

// 99 % of the finite values lie within the limit, as view.py has it. What is needed to count tokens
// beyond a threshold without looking at each stands beside it.
function finished(column) {
  const known = column.values.filter((x) => !Number.isNaN(x));
  column.ranked = known.slice().sort();
  column.sizes = known.map(Math.abs).sort();
  const n = below(column.sizes, Infinity);
  const found = n ? column.sizes[Math.ceil(0.99 * n) - 1] || column.sizes[n - 1] : 0;
  column.limit = found || 1;
  const finite = column.ranked.filter(Number.isFinite);
  column.low = finite.length ? finite[0] : 0;
  column.high = finite.length ? finite[finite.length - 1] : 0;
  return column;
}

// How many of the ascending values are smaller than x.
function below(ascending, x) {
  let low = 0, high = ascending.length;
  while (low < high) { const mid = (low + high) >> 1; if (ascending[mid] < x) low = mid + 1; else high = mid; }
  return low;
}

// The smallest and largest value of every response, and their mean.
function rowsOf(column, starts) {
  const n = starts.length - 1;
  const rows = { low: new Float32Array(n), high: new Float32Array(n), mean: new Float64Array(n) };
  for (let r = 0; r < n; r++) {
    let low = Infinity, high = -Infinity, sum = 0, count = 0;
    for (let i = starts[r]; i < starts[r + 1]; i++) {
      const x = column.values[i];
      if (x < low) low = x;
      if (x > high) high = x;
      if (Number.isFinite(x)) { sum += x; count++; }
    }
    rows.low[r] = low;
    rows.high[r] = high;
    rows.mean[r] = count ? sum / count : NaN;
  }
  return rows;
}

// [tokens, responses] that a threshold marks; null for another choice, which has to look at all.
function countOf({ kind, at }, column, rows) {
  const n = column.ranked.length;
  if (kind === 'ge') return [n - below(column.ranked, at), rows.high.reduce((m, x) => m + (x >= at), 0)];
  if (kind === 'abs') return [n - below(column.sizes, at),
    rows.high.reduce((m, x, r) => m + (Math.max(x, -rows.low[r]) >= at), 0)];
  if (kind === 'le') {
    let tokens = below(column.ranked, at);
    while (tokens < n && column.ranked[tokens] <= at) tokens++; // those that equal it
    return [tokens, rows.low.reduce((m, x) => m + (x <= at), 0)];
  }
  return null;
}

function marker(choice, values) {
  const { kind, at, to } = choice;
  if (kind === 'ge') return (i) => values[i] >= at;
  if (kind === 'le') return (i) => values[i] <= at;
  if (kind === 'abs') return (i) => Math.abs(values[i]) >= at;
  if (kind === 'bin') return (i) => values[i] >= at && values[i] <= to;
  return (i, place) => place >= at && place < to;
}

function number(x) {
  if (Number.isNaN(x)) return '–';
  if (!Number.isFinite(x)) return x > 0 ? '∞' : '−∞';
  const size = Math.abs(x);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? x.toExponential(2) : String(+x.toPrecision(3));
  return text.replace('-', '−').replace('e+', 'e').replace('e-', 'e−');
}
