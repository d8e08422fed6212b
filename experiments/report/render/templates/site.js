// Comforts only: the pages say everything without a script.
"use strict";

const KEY = "fourierft-report-rule";

function remember() {
  const inputs = document.querySelectorAll('.switch input[name="rule"]');
  let chosen = null;
  try { chosen = localStorage.getItem(KEY); } catch { /* no storage: nothing to remember */ }
  for (const input of inputs) {
    if (input.value === chosen) input.checked = true;
    input.addEventListener("change", () => {
      try { localStorage.setItem(KEY, input.value); } catch { /* as above */ }
    });
  }
}

function filters() {
  for (const [place, part] of document.querySelectorAll("[data-filtered]").entries()) {
    const lines = [...part.querySelectorAll("tbody tr")];
    const texts = lines.map((line) => line.textContent.toLowerCase());
    const box = document.createElement("div");
    box.className = "filter";
    box.innerHTML = `<label for="filter-${place}">Only lines with</label><input type="search" id="filter-${place}"><output for="filter-${place}"></output>`;
    const input = box.querySelector("input");
    const count = box.querySelector("output");
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      lines.forEach((line, number) => {
        const shown = words.every((word) => texts[number].includes(word));
        line.hidden = !shown;
        left += shown;
      });
      count.value = words.length ? `${left} of ${lines.length} lines` : "";
    });
    part.prepend(box);
  }
}

remember();
filters();
