'use strict';
// The histogram of a line's values, and their mean by position, as SVG that answers to clicks.

const BINS = 48, WIDE = 480, TALL = 90, FLOOR = 74;

function drawn(name, attributes, text) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function emptied(svg) {
  svg.setAttribute('viewBox', `0 0 ${WIDE} ${TALL}`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.replaceChildren();
  return svg;
}

// From the smallest finite value to the largest; zero is always in sight.
function binsOf(column) {
  const low = Math.min(0, column.low), high = Math.max(0, column.high);
  const width = (high - low) / BINS || 1, counts = new Uint32Array(BINS);
  for (const x of column.values)
    if (Number.isFinite(x)) counts[Math.min(BINS - 1, Math.floor((x - low) / width))]++;
  return { low, high: low + width * BINS, width, counts };
}

function histogram(svg, column, bins) {
  emptied(svg);
  const most = Math.log1p(Math.max(1, ...bins.counts)), step = WIDE / BINS;
  bins.counts.forEach((n, k) => {
    const tall = n ? Math.max(2, (Math.log1p(n) / most) * (FLOOR - 4)) : 0;
    const from = bins.low + k * bins.width, to = from + bins.width;
    const bar = drawn('rect', { x: k * step + 0.5, y: FLOOR - tall, width: step - 1, height: tall, 'data-bin': k });
    bar.append(drawn('title', {}, `${number(from)} to ${number(to)} ${column.unit}: ${n} tokens`));
    svg.append(bar);
  });
  const place = (x) => ((x - bins.low) / (bins.high - bins.low)) * WIDE;
  svg.append(drawn('line', { x1: place(0), x2: place(0), y1: 0, y2: FLOOR + 4 }));
  svg.append(drawn('line', { x1: 0, x2: WIDE, y1: FLOOR, y2: FLOOR }));
}

// The mean of every position, positions taken together where there are more than bars.
function profileOf(column, starts) {
  let longest = 0;
  for (let r = 0; r + 1 < starts.length; r++) longest = Math.max(longest, starts[r + 1] - starts[r]);
  const per = Math.max(1, Math.ceil(longest / 100)), n = Math.ceil(longest / per);
  const sums = new Float64Array(n), counts = new Uint32Array(n);
  for (let r = 0; r + 1 < starts.length; r++)
    for (let i = starts[r]; i < starts[r + 1]; i++)
      if (Number.isFinite(column.values[i])) {
        const k = Math.floor((i - starts[r]) / per);
        sums[k] += column.values[i];
        counts[k]++;
      }
  return { per, n, longest, counts, means: Array.from(sums, (s, k) => (counts[k] ? s / counts[k] : NaN)) };
}

function profile(svg, column, found) {
  emptied(svg);
  const finite = found.means.filter(Number.isFinite);
  const high = Math.max(0, ...finite), low = Math.min(0, ...finite), span = high - low || 1;
  const zero = 4 + (high / span) * (FLOOR - 4), step = WIDE / Math.max(1, found.n);
  found.means.forEach((mean, k) => {
    const tall = Number.isFinite(mean) ? Math.max(1.5, (Math.abs(mean) / span) * (FLOOR - 4)) : 0;
    const bar = drawn('rect', { x: k * step + 0.5, y: mean < 0 ? zero : zero - tall,
      width: Math.max(0.5, step - 1), height: tall, 'data-bin': k });
    const last = Math.min((k + 1) * found.per, found.longest);
    bar.append(drawn('title', {}, `token ${k * found.per + 1}${last > k * found.per + 1 ? ` to ${last}` : ''}: ` +
      `mean ${number(mean)} ${column.unit} over ${found.counts[k]}`));
    svg.append(bar);
  });
  svg.append(drawn('line', { x1: 0, x2: WIDE, y1: zero, y2: zero }));
}

// The mark of the token that is looked at; `place` in [0, 1], or null for none.
function marked(svg, place, kind) {
  svg.querySelector(`.${kind}`)?.remove();
  if (place === null || !Number.isFinite(place)) return;
  const x = Math.max(0, Math.min(1, place)) * WIDE;
  svg.append(drawn('line', { class: kind, x1: x, x2: x, y1: 0, y2: FLOOR + 6 }));
}
