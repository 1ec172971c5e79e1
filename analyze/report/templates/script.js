"use strict";

// A click on a heading sorts by that column, a second one the other way round; numbers as numbers, gaps last.
function sortBy(header) {
  const table = header.closest("table");
  const body = table.tBodies[0];
  const column = Array.from(header.parentNode.children).indexOf(header);
  const descending = header.getAttribute("aria-sort") === "ascending";
  const value = (row) => {
    const text = row.cells[column].dataset.sort;
    const number = Number(text);
    return text !== "" && !Number.isNaN(number) ? number : text;
  };
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    return descending ? -order : order;
  };
  const rows = Array.from(body.rows).map((row) => [value(row), row]);
  rows.sort((a, b) => compare(a[0], b[0]));
  for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  for (const [, row] of rows) body.append(row);
}

for (const button of document.querySelectorAll("tr.titles button")) {
  button.addEventListener("click", () => sortBy(button.parentNode));
}
