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
  return { ...head, ...{ arrays } };
}

// One line of every response: a value per token, what it is, and where its colours end.
function columnOf(data, method, quantity, shift) {
  const said = data.methods[method], signal = said.signals[quantity];
  const late = signal.at.includes(shift) ? shift : signal.at[0];
  const from = data.arrays[`v${method}.${quantity}`], starts = data.arrays.starts;
  const values = new Float32Array(data.arrays.tokens.length);
  for (let r = 0; r + 1 < starts.length; r++)
    for (let i = starts[r]; i < starts[r + 1]; i++) values[i] = from[i + r + late];
  return finished({ name: signal.name, method: said.name, unit: signal.unit, values, late });
}

function differenceOf(one, two) {
  const values = one.values.map((x, i) => x - two.values[i]);
  return finished({ name: 'difference', method: '', unit: one.unit, values, late: one.late });
}

// 99 % of the finite values lie within the limit, as view.py has it.
function finished(column) {
  const finite = column.values.filter(Number.isFinite);
  const sizes = finite.map(Math.abs).sort();
  const found = sizes.length ? sizes[Math.ceil(0.99 * sizes.length) - 1] || sizes[sizes.length - 1] : 0;
  column.limit = found || 1;
  let low = Infinity, high = -Infinity;
  for (const x of finite) { if (x < low) low = x; if (x > high) high = x; }
  column.low = finite.length ? low : 0;
  column.high = finite.length ? high : 0;
  return column;
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
