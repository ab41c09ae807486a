"use strict";
/* A cell's number: "1,234", "0.61 to 0.70" and "12.5 %" by their first number; words are not numbers. */
const numberOf = text => /^[-+\u2212]?[\d.,]+/.test(text) ? parseFloat(text.replace(/,/g, "").replace("\u2212", "-")) : NaN;
const compare = (a, b) => {
  const x = numberOf(a), y = numberOf(b);
  if (isNaN(x) && isNaN(y)) return a.localeCompare(b, "en", { numeric: true });
  return isNaN(x) ? 1 : isNaN(y) ? -1 : x - y;
};
const sortable = table => {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const text = row => row.cells[column].textContent.trim();
      /* Empty cells and words stay last both ways. */
      const rows = [...body.rows], known = rows.filter(row => text(row) !== "");
      known.sort((a, b) => {
        const turn = down && !isNaN(numberOf(text(a))) === !isNaN(numberOf(text(b))) ? -1 : 1;
        return turn * compare(text(a), text(b));
      });
      body.append(...known, ...rows.filter(row => text(row) === ""));
    });
  });
};
/* Shows the items that have every typed word. The box is hidden where this does not run. */
const sift = (box, items) => {
  const field = box.querySelector("input"), count = box.querySelector("output");
  const texts = items.map(item => item.textContent.toLowerCase());
  const apply = () => {
    const words = field.value.toLowerCase().split(/\s+/);
    let shown = 0;
    items.forEach((item, n) => {
      item.hidden = !words.every(word => texts[n].includes(word));
      shown += !item.hidden;
    });
    count.textContent = field.value.trim() ? `${shown} of ${items.length}` : "";
  };
  field.addEventListener("input", apply);
  box.hidden = false;
  apply();
};
document.querySelectorAll("table[data-sort]").forEach(sortable);
document.querySelectorAll("[data-find]").forEach(box => {
  sift(box, [...document.querySelectorAll(box.dataset.find)]);
});
/* On paper nothing can be opened. */
{
  let opened = [];
  const turn = open => opened.forEach(one => { one.open = open; });
  addEventListener("beforeprint", () => { opened = [...document.querySelectorAll("details:not([open])")]; turn(true); });
  addEventListener("afterprint", () => turn(false));
}
