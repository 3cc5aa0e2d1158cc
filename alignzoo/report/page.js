"use strict";
// Everything below only makes the page handier: all content is in the document already.
const curves = document.querySelector("#curves");
const metrics = curves.querySelectorAll(".metric");
if (metrics.length) {
  const label = document.createElement("label");
  const field = document.createElement("input");
  label.className = "find";
  field.type = "search";
  field.autocomplete = "off";
  label.append("Filter metrics ", field);
  curves.querySelector("h3").before(label);
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const metric of metrics) metric.hidden = !metric.dataset.name.toLowerCase().includes(wanted);
    if (wanted) for (const part of curves.querySelectorAll("details")) part.open = true;
  });
}
