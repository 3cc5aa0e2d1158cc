'use strict';
// The list draws the responses that are in sight; the controls decide what their colours mean.

(() => {
  const find = (id) => document.getElementById(id);
  const list = find('list'), panel = find('token');
  const SIDES = ['first', 'second'];
  const OUT = 2; // screens above and below that are drawn ahead, in quarters
  let data, starts, n, columns = [], order = [], tops = [], heights, choice, test, bins, rows;
  let active = null; // [response, token]
  const drawnRows = new Map(); // place in the order -> element

  const escaped = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`)
    .replace(/\ue003/g, '<i>').replace(/\ue004/g, '</i>');
  const textOf = (entry) => data.table[entry][0];
  const shift = () => Number(find('shift').value);
  const side = () => columns[Number(find('side').value)];

  function colour(x, limit) {
    if (Number.isNaN(x)) return 'u';
    return `c${10 + Math.round(10 * Math.max(-1, Math.min(1, x / limit)))}`;
  }

  // --- one response --------------------------------------------------------------------------

  function lineHTML(column, r) {
    const parts = [];
    const own = column === side();
    for (let i = starts[r]; i < starts[r + 1]; i++) {
      const mark = own && test(i, i - starts[r]) ? ' h' : '';
      parts.push(`<span class="${colour(column.values[i], column.limit)}${mark}">${escaped(textOf(data.arrays.tokens[i]))}</span>`);
    }
    const name = columns.length > 1
      ? `<p class="who">${escaped([column.method, column.name].filter(Boolean).join(': '))}</p>` : '';
    return `${name}<p class="toks">${parts.join('')}</p>`;
  }

  function responseHTML(r) {
    const [place, label, prompt] = data.rows[r], column = side();
    return `<h3>${r + 1}${label ? ` <span class="label">${escaped(label)}</span>` : ''} <span class="place">${escaped(place)} · ` +
      `${starts[r + 1] - starts[r]} tokens, mean ${number(rows.mean[r])}${column.unit ? ` ${escaped(column.unit)}` : ''}</span></h3>` +
      `<p class="prompt text" dir="auto">${escaped(prompt)}</p>` + columns.map((c) => lineHTML(c, r)).join('');
  }

  // --- the list ------------------------------------------------------------------------------

  function guess(r) {
    const letters = (starts[r + 1] - starts[r]) * 5;
    const lines = Math.ceil(letters / Math.max(20, list.clientWidth / 8));
    return 90 + columns.length * (lines * 27 + 30);
  }

  function measure(from) {
    let top = from ? tops[from] : 0;
    for (let k = from; k < n; k++) { tops[k] = top; top += heights[order[k]]; }
    tops[n] = top;
    list.style.height = `${top}px`;
  }

  function placeAt(y) {
    let low = 0, high = n;
    while (low < high) { const mid = (low + high) >> 1; if (tops[mid + 1] <= y) low = mid + 1; else high = mid; }
    return Math.min(low, n - 1);
  }

  function drawRow(k) {
    const element = document.createElement('article');
    element.className = 'resp';
    element.innerHTML = responseHTML(order[k]);
    element.dataset.k = k;
    list.append(element);
    drawnRows.set(k, element);
    return element;
  }

  function draw() {
    if (!n) return;
    const box = list.getBoundingClientRect(), ahead = innerHeight / 4 * OUT;
    const first = placeAt(Math.max(0, -box.top - ahead));
    const last = placeAt(Math.max(0, -box.top + innerHeight + ahead));
    for (const [k, element] of drawnRows) if (k < first || k > last) { element.remove(); drawnRows.delete(k); }
    const fresh = [];
    for (let k = first; k <= last; k++) if (!drawnRows.has(k)) fresh.push([k, drawRow(k)]);
    settle(fresh, placeAt(Math.max(0, -box.top)));
    outline();
  }

  // Heights are known once a row is drawn; what is in sight stays where it is.
  function settle(fresh, anchor) {
    const before = tops[anchor];
    let from = n;
    for (const [k, element] of fresh) {
      const tall = element.offsetHeight;
      if (tall !== heights[order[k]]) { heights[order[k]] = tall; from = Math.min(from, k); }
    }
    if (from < n) measure(from);
    for (const [k, element] of drawnRows) element.style.top = `${tops[k]}px`;
    if (tops[anchor] !== before) scrollBy({ top: tops[anchor] - before, behavior: 'instant' });
  }

  function redraw() {
    for (const element of drawnRows.values()) element.remove();
    drawnRows.clear();
    draw();
  }

  // Only the classes change: a threshold that is dragged rebuilds nothing.
  function remark() {
    const at = columns.indexOf(side());
    for (const [k, element] of drawnRows) {
      const r = order[k], spans = element.querySelectorAll('.toks')[at].children;
      for (let i = 0; i < spans.length; i++) spans[i].classList.toggle('h', test(starts[r] + i, i));
    }
  }

  function resized() {
    heights = Float64Array.from({ length: n }, (_, r) => guess(r));
    tops = new Float64Array(n + 1);
    measure(0);
    redraw();
  }

  // --- what is shown -------------------------------------------------------------------------

  function chosen() {
    const picked = [...document.querySelectorAll('[data-signal]')].map((s) => Number(s.value));
    columns = scaled(picked.map((quantity, method) => columnOf(data, method, quantity, shift())));
    if (columns.length === 2 && columns[0].unit === columns[1].unit) columns.push(differenceOf(...columns));
    const select = find('side'), before = select.value;
    select.replaceChildren(...columns.map((c, k) => new Option(
      columns.length === 1 || k === 2 ? c.name : `${SIDES[k]}: ${c.name}`, k)));
    select.value = Number(before) < columns.length && before !== '' ? before : String(columns.length - 1);
    select.hidden = columns.length === 1;
    scales();
    sided();
  }

  function scales() {
    const apart = data.methods.length > 1 && columns.length < 3;
    const note = document.createElement('p');
    note.className = 'note';
    note.textContent = apart ? 'No difference is shown: the units of the two signals are not the same.' : '';
    find('scales').replaceChildren(...columns.map((c) => {
      const box = document.createElement('div');
      box.className = 'scale';
      const unit = c.unit ? ` ${c.unit}` : '';
      const ends = [`−${number(c.limit)}${unit}`, '0', `${number(c.limit)}${unit}`];
      box.innerHTML = `<p class="who">${escaped([c.method, c.name].filter(Boolean).join(': '))}</p><p class="bar" aria-hidden="true">` +
        Array.from({ length: 21 }, (_, k) => `<span class="c${k}"></span>`).join('') +
        `</p><p class="ends">${ends.map((end) => `<span>${escaped(end)}</span>`).join('')}</p>`;
      return box;
    }), note);
  }

  // Another line is marked, drawn as histogram and sorted by.
  function sided() {
    const column = side();
    bins = binsOf(column);
    histogram(find('hist'), column, bins);
    find('hist').profile = profileOf(column, starts);
    profile(find('prof'), column, find('hist').profile);
    const unit = column.unit ? `, ${column.unit}` : '';
    find('hist-title').textContent = `Tokens by value${unit}: ${number(bins.low)} to ${number(bins.high)} (heights are logarithms)`;
    find('prof-title').textContent = `Mean by position${unit}, tokens 1 to ${find('hist').profile.longest}`;
    rows = rowsOf(column, starts);
    // Where the large values are negative, those are marked.
    const below = column.high < column.limit && column.low <= -column.limit;
    find('kind').value = below ? 'le' : 'ge';
    choice = { kind: find('kind').value, at: below ? -column.limit : column.limit };
    counted();
    sorted();
    resized();
    told();
  }

  function counted() {
    const column = side();
    test = marker(choice, column.values);
    const [total, among] = countOf(choice, column, rows) ?? looked();
    const every = data.arrays.tokens.length, share = every ? (100 * total) / every : 0;
    find('count').textContent = `${total} of ${every} tokens (${share.toPrecision(2)} %) in ${among} of ${n} responses`;
    const free = choice.kind === 'bin' || choice.kind === 'place';
    if (!free) {
      find('at').value = Number(choice.at.toPrecision(4));
      find('slide').value = String(1000 * (choice.at - bins.low) / (bins.high - bins.low || 1));
    }
    marked(find('hist'), free ? null : (choice.at - bins.low) / (bins.high - bins.low), 'cut');
    for (const [svg, kind] of [['hist', 'bin'], ['prof', 'place']])
      for (const bar of find(svg).querySelectorAll('rect'))
        bar.classList.toggle('on', choice.kind === kind && Number(bar.dataset.bin) === choice.bar);
  }

  function hitsOf(r) {
    let count = 0;
    for (let i = starts[r]; i < starts[r + 1]; i++) if (test(i, i - starts[r])) count++;
    return count;
  }

  function looked() {
    let total = 0, among = 0;
    for (let r = 0; r < n; r++) { const count = hitsOf(r); total += count; among += count > 0; }
    return [total, among];
  }

  function sorted() {
    const by = find('order').value;
    order = Array.from({ length: n }, (_, r) => r);
    const value = (r, none) => (Number.isNaN(rows.mean[r]) ? none : rows.mean[r]);
    if (by === 'high') order.sort((a, b) => value(b, -Infinity) - value(a, -Infinity) || a - b);
    if (by === 'low') order.sort((a, b) => value(a, Infinity) - value(b, Infinity) || a - b);
    if (by !== 'hits') return;
    const hits = Uint32Array.from({ length: n }, (_, r) => hitsOf(r));
    order.sort((a, b) => hits[b] - hits[a] || a - b);
  }

  function marking(next) {
    choice = next;
    counted();
    if (find('order').value === 'hits') { sorted(); measure(0); redraw(); } else remark();
  }

  function nextMarked() {
    const from = active ? order.indexOf(active[0]) : placeAt(Math.max(0, -list.getBoundingClientRect().top));
    for (let step = 0; step <= n; step++) {
      const r = order[(from + step) % n], first = active && step === 0 ? active[1] + 1 : 0;
      for (let i = first; i < starts[r + 1] - starts[r]; i++)
        if (test(starts[r] + i, i)) return look(r, i, true);
    }
    return undefined;
  }

  // --- one token -----------------------------------------------------------------------------

  function look(r, i, into) {
    active = [r, i];
    if (into) reach(order.indexOf(r), i);
    outline();
    told();
  }

  function reach(k, i) {
    const box = list.getBoundingClientRect();
    if (!drawnRows.has(k)) { scrollTo({ top: scrollY + box.top + tops[k] - innerHeight / 4, behavior: 'instant' }); draw(); }
    const span = drawnRows.get(k)?.querySelector('.toks')?.children[i], at = span?.getBoundingClientRect();
    const floor = innerHeight - panel.offsetHeight - 10;
    if (at && (at.top < 10 || at.bottom > floor)) {
      scrollBy({ top: at.top - Math.max(60, floor / 3), behavior: 'instant' });
      draw();
    }
  }

  function outline() {
    for (const span of list.querySelectorAll('.a')) span.classList.remove('a');
    if (!active) return;
    const row = drawnRows.get(order.indexOf(active[0]));
    for (const line of row ? row.querySelectorAll('.toks') : []) line.children[active[1]].classList.add('a');
  }

  function told() {
    const column = active && side(), i = active ? starts[active[0]] + active[1] : 0;
    marked(find('hist'), active ? (column.values[i] - bins.low) / (bins.high - bins.low) : null, 'here');
    const found = find('hist').profile;
    marked(find('prof'), active ? (Math.floor(active[1] / found.per) + 0.5) / found.n : null, 'here');
    if (!active) return;
    const [r, t] = active, [text, id] = data.table[data.arrays.tokens[i]];
    const count = starts[r + 1] - starts[r];
    const where = column.late ? 'read where it sits: what would follow it' : 'read where it is predicted';
    panel.innerHTML = `<h2 dir="ltr"><b>${escaped(text)}</b> id ${id} · token ${t + 1} of ${count} in response ${r + 1} · ${where}</h2>` +
      data.methods.map((method, m) => methodHTML(method, m, r, t)).join('');
  }

  function methodHTML(method, m, r, t) {
    const base = starts[r] + r + t;
    const values = method.signals.map((s, q) => {
      const late = s.at.includes(shift()) ? shift() : s.at[0];
      const said = columns[m] && columns[m].name === s.name ? ' class="said"' : '';
      return `<div${said}><dt>${escaped(s.name)}</dt><dd>${number(data.arrays[`v${m}.${q}`][base + late])}${s.unit ? ` ${escaped(s.unit)}` : ''}</dd></div>`;
    });
    const name = data.methods.length > 1 ? `<h4>${escaped(method.name)}</h4>` : '';
    return `<div class="by">${name}${topsHTML(method, m, base + shift(), starts[r] + t)}<dl>${values.join('')}</dl></div>`;
  }

  function topsHTML(method, m, at, token) {
    if (!method.distributions.length) return '';
    const own = data.table[data.arrays.tokens[token]][1];
    const cell = (entry, p) => {
      const [text, id] = data.table[entry];
      return `<td${id === own && !shift() ? ' class="self"' : ''}>${escaped(text)} <span class="p">${percent(p)}</span></td>`;
    };
    const k = data.arrays[`t${m}.0`].length / data.arrays[`o${m}.0`].length;
    const rows = Array.from({ length: k }, (_, j) => `<tr><th>${j + 1}</th>${method.distributions.map((_, d) =>
      cell(data.arrays[`t${m}.${d}`][at * k + j], data.arrays[`p${m}.${d}`][at * k + j])).join('')}</tr>`);
    const self = method.distributions.map((_, d) => `<td class="p">${percent(data.arrays[`o${m}.${d}`][at])}</td>`);
    const what = shift() ? 'next' : 'this';
    return `<div class="scroll"><table><thead><tr><td></td>${method.distributions.map((d) => `<th>${escaped(d)}</th>`).join('')}</tr></thead>` +
      `<tbody>${rows.join('')}<tr><th title="the probability of the ${what} token itself">${what}</th>${self.join('')}</tr></tbody></table></div>`;
  }

  function percent(p) {
    return p ? `${((100 * p) / data.full).toFixed(1)} %` : '< 0.1 %';
  }

  // --- what people do ------------------------------------------------------------------------

  function tokenAt(target) {
    const span = target.closest('.toks > span'), row = target.closest('.resp');
    if (!span || !row || !list.contains(row)) return null;
    return [order[Number(row.dataset.k)], Array.prototype.indexOf.call(span.parentNode.children, span)];
  }

  function pointed(event) {
    const found = tokenAt(event.target);
    if (found && (!active || found[0] !== active[0] || found[1] !== active[1])) look(...found, false);
  }

  function pressed(event) {
    const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    if (!active) { look(order[placeAt(Math.max(0, -list.getBoundingClientRect().top))], 0, true); return; }
    let k = order.indexOf(active[0]) + step[0], i = active[1] + step[1];
    if (i < 0 && k > 0) { k -= 1; i = Infinity; }
    if (k >= 0 && k < n && step[1] && i >= starts[order[k] + 1] - starts[order[k]] && i !== Infinity && k < n - 1) { k += 1; i = 0; }
    k = Math.max(0, Math.min(n - 1, k));
    const last = starts[order[k] + 1] - starts[order[k]] - 1;
    look(order[k], Math.max(0, Math.min(last, i)), true);
  }

  function listen() {
    let waiting = false;
    addEventListener('scroll', () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; draw(); });
    }, { passive: true });
    let width = innerWidth;
    addEventListener('resize', () => { if (innerWidth !== width) { width = innerWidth; resized(); } else draw(); });
    list.addEventListener('mouseover', pointed);
    list.addEventListener('click', pointed);
    list.addEventListener('keydown', pressed);
    for (const select of document.querySelectorAll('[data-signal], #shift')) select.addEventListener('change', chosen);
    find('side').addEventListener('change', sided);
    find('kind').addEventListener('change', () => marking({ kind: find('kind').value, at: Number(find('at').value) }));
    find('order').addEventListener('change', () => { sorted(); measure(0); redraw(); });
    find('at').addEventListener('input', () => {
      if (find('at').value !== '') marking({ kind: find('kind').value, at: Number(find('at').value) });
    });
    find('slide').addEventListener('input', () => marking({ kind: find('kind').value,
      at: bins.low + (Number(find('slide').value) / 1000) * (bins.high - bins.low) }));
    find('next').addEventListener('click', nextMarked);
    find('hist').addEventListener('click', (event) => {
      const bar = Number(event.target.dataset?.bin);
      if (!Number.isNaN(bar)) marking({ kind: 'bin', bar, at: bins.low + bar * bins.width, to: bins.low + (bar + 1) * bins.width });
    });
    find('prof').addEventListener('click', (event) => {
      const bar = Number(event.target.dataset?.bin), { per } = find('hist').profile;
      if (!Number.isNaN(bar)) marking({ kind: 'place', bar, at: bar * per, to: (bar + 1) * per });
    });
  }

  async function start() {
    find('loading').hidden = false;
    data = await unpacked(find('data').textContent);
    find('data').remove();
    starts = data.arrays.starts;
    n = data.rows.length;
    for (const select of document.querySelectorAll('[data-signal]')) {
      const signals = data.methods[Number(select.dataset.signal)].signals;
      select.append(...signals.map((s, q) => new Option(s.unit ? `${s.name}, ${s.unit}` : s.name, q)));
      select.value = signals.findIndex((s) => s.name === select.dataset.opening);
    }
    find('shift').value = find('shift').dataset.opening;
    find('drawings').open = innerWidth > 960;
    find('loading').hidden = true;
    find('static').remove();
    find('lens').hidden = false;
    chosen();
    listen();
  }

  start();
})();
