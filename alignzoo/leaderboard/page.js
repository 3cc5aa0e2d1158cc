"use strict";
// Everything below only makes the page handier: all content is in the document already.
document.documentElement.classList.add("scripted");

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

// ---- sorting and filtering the table ----

const number = (cell) => (cell.dataset.value === undefined ? null : Number(cell.dataset.value));

const compare = (index, sign) => (a, b) => {
  const [x, y] = [a.cells[index], b.cells[index]];
  if (index === 0) return sign * x.textContent.localeCompare(y.textContent, undefined, { numeric: true });
  const [p, q] = [number(x), number(y)];
  if (p === null || q === null) return (p === null) - (q === null); // without a figure: last
  return sign * (p - q);
};

const sortBy = (table, head) => {
  const first = head.cellIndex === 0 ? "ascending" : "descending";
  const other = first === "ascending" ? "descending" : "ascending";
  const direction = head.getAttribute("aria-sort") === first ? other : first;
  for (const th of table.tHead.rows[0].cells) th.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction);
  const rows = [...table.tBodies[0].rows];
  rows.sort(compare(head.cellIndex, direction === "ascending" ? 1 : -1));
  table.tBodies[0].append(...rows);
};

for (const table of document.querySelectorAll(".ranking, .categories")) {
  for (const head of table.tHead.rows[0].cells) {
    const button = make("button", { type: "button" }, ...head.childNodes);
    button.addEventListener("click", () => sortBy(table, head));
    head.replaceChildren(button);
  }
}

for (const view of document.querySelectorAll(".view")) {
  const field = make("input", { type: "search", autocomplete: "off" });
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const row of view.querySelectorAll(".ranking tbody tr, .categories tbody tr")) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    }
  });
  view.querySelector(".scroll").before(make("label", { class: "find" }, "Filter models ", field));
}

// ---- one model's answers beside the baseline's ----

const dialog = document.querySelector("dialog");

const collect = (view, row) =>
  [...view.querySelectorAll(".prompt")].flatMap((prompt) => {
    const own = prompt.querySelector(`.said[data-row="${row}"]`);
    const value = own && own.dataset.value !== undefined ? Number(own.dataset.value) : null;
    return own ? [{ prompt, own, value, baseline: prompt.querySelector(".said.baseline") }] : [];
  });

const ORDERS = {
  prompt: ["in the benchmark’s order", () => 0],
  low: ["lowest value first", (a, b) => a.value - b.value],
  high: ["highest value first", (a, b) => b.value - a.value],
};

const ordered = (entries, order) => {
  if (order === "prompt") return entries;
  const judged = entries.filter((entry) => entry.value !== null).sort(ORDERS[order][1]);
  return [...judged, ...entries.filter((entry) => entry.value === null)];
};

const says = (entry, wanted) =>
  [entry.prompt.querySelector("summary"), entry.prompt.querySelector(".asked"), entry.own]
    .some((node) => node.textContent.toLowerCase().includes(wanted));

// Prompt; then the answer, the baseline's answer and the judge's words side by side.
const side = (entry) => {
  const own = entry.own.cloneNode(true);
  const others = entry.baseline && entry.baseline !== entry.own ? [entry.baseline.cloneNode(true)] : [];
  const verdicts = [...own.querySelectorAll(".verdict")];
  for (const verdict of verdicts) verdict.open = true;
  if (verdicts.length) {
    const head = make("h4", {}, verdicts.length > 1 ? "Verdicts" : "Verdict");
    others.push(make("article", { class: "said words" }, head, ...verdicts));
  }
  return [
    entry.prompt.querySelector(".asked").cloneNode(true),
    make("div", { class: "answers" }, own, ...others),
  ];
};

const listed = (entry) => {
  const summary = entry.prompt.querySelector("summary");
  const told = entry.own.querySelector(".told");
  const words = [entry.prompt.dataset.name, entry.prompt.dataset.category, told && told.textContent];
  return make("button", { type: "button" },
    make("span", { class: "told" }, words.filter(Boolean).join(" · ")),
    summary.querySelector(".excerpt").cloneNode(true));
};

const open = (view, row, title) => {
  const entries = collect(view, row);
  let shown = entries;
  let place = 0;
  const field = make("input", { type: "search", autocomplete: "off", placeholder: "prompt, answer, verdict" });
  const order = make("select", {},
    ...Object.entries(ORDERS).map(([value, [text]]) => make("option", { value }, text)));
  const against = entries.some((entry) => entry.baseline && entry.baseline !== entry.own);
  const theirs = against ? entries[0].baseline.querySelector("h4").firstChild.textContent : "";
  const back = make("button", { type: "button" }, "Previous");
  const next = make("button", { type: "button" }, "Next");
  const close = make("button", { type: "button" }, "Close");
  const status = make("span", { role: "status", class: "note" });
  const list = make("ul", { class: "list", "aria-label": "Prompts" });
  const pane = make("div", { class: "pane", tabindex: "0" });

  const show = (to) => {
    place = to;
    for (const [i, item] of [...list.children].entries()) {
      item.firstChild.setAttribute("aria-current", String(i === place));
    }
    if (list.children[place]) list.children[place].scrollIntoView({ block: "nearest" });
    back.disabled = place <= 0;
    next.disabled = place >= shown.length - 1;
    status.textContent = shown.length ? `${place + 1} of ${shown.length}` : "nothing found";
    pane.replaceChildren(...(shown[place] ? side(shown[place]) : []));
    pane.scrollTop = 0;
  };
  const refresh = () => {
    const wanted = field.value.trim().toLowerCase();
    shown = ordered(entries.filter((entry) => says(entry, wanted)), order.value);
    list.replaceChildren(...shown.map((entry, i) => {
      const button = listed(entry);
      button.addEventListener("click", () => show(i));
      return make("li", {}, button);
    }));
    show(0);
  };

  field.addEventListener("input", refresh);
  order.addEventListener("change", refresh);
  back.addEventListener("click", () => show(place - 1));
  next.addEventListener("click", () => show(place + 1));
  close.addEventListener("click", () => dialog.close());
  dialog.replaceChildren(
    make("div", { class: "bar-top" },
      make("h2", { id: "compare-title" }, against ? `${title} beside ${theirs.trim()}` : title),
      make("label", {}, "Find ", field), make("label", {}, "Order ", order),
      status, back, next, close),
    make("div", { class: "panes" }, list, pane));
  refresh();
  dialog.showModal();
};

for (const view of document.querySelectorAll(".view")) {
  for (const row of view.querySelectorAll(".ranking tbody tr")) {
    const link = row.querySelector("th a");
    if (!link) continue;
    row.dataset.open = "";
    row.addEventListener("click", (event) => {
      event.preventDefault();
      open(view, row.dataset.row, link.textContent);
    });
  }
}
