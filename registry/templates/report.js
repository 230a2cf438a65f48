"use strict";
// Sorts the tables of this page. Without it every table is there in its first order.
(() => {
  const MISSING = new Set(["", "–"]);
  const status = document.createElement("p");
  status.className = "sr";
  status.setAttribute("role", "status");
  document.body.append(status);

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const given = cell.dataset.v ?? cell.textContent.trim();
    if (MISSING.has(given)) return null;
    return cell.dataset.v !== undefined && Number.isFinite(Number(given)) ? Number(given) : given;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });

  const sort = (table, column, descending) => {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row, place) => ({ row, place, value: valueOf(row, column) }));
    rows.sort((a, b) => {
      // what was not measured comes last both ways
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null) || a.place - b.place;
      const order = compare(a.value, b.value);
      return (descending ? -order : order) || a.place - b.place;
    });
    body.append(...rows.map((one) => one.row));
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((th, at) => {
      if (th.hasAttribute("aria-sort")) th.setAttribute("aria-sort", at === column ? (descending ? "descending" : "ascending") : "none");
    });
    const choice = table.parentElement.previousElementSibling?.querySelector?.("select");
    if (choice) choice.value = `${column} ${descending ? 1 : 0}`;
    status.textContent = `Sorted by ${headers[column].dataset.name}, ${descending ? "highest" : "lowest"} first`;
  };

  const chooser = (table, columns) => {
    const label = document.createElement("label");
    label.className = "sortby";
    label.append("Sort by ");
    const select = document.createElement("select");
    select.append(new Option("as given", ""));
    for (const { column, name } of columns) {
      select.append(new Option(`${name} ↑`, `${column} 0`), new Option(`${name} ↓`, `${column} 1`));
    }
    select.addEventListener("change", () => {
      const [column, descending] = select.value.split(" ").map(Number);
      if (select.value) sort(table, column, descending === 1);
    });
    label.append(select);
    table.parentElement.before(label);
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    if (!table.tHead || table.tBodies[0].rows.length < 2) continue;
    const columns = [];
    [...table.tHead.rows[0].cells].forEach((th, column) => {
      if ("nosort" in th.dataset) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...th.childNodes);
      th.append(button);
      th.dataset.name = button.textContent.trim().replace(/\s+/g, " ");
      th.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sort(table, column, th.getAttribute("aria-sort") === "ascending"));
      columns.push({ column, name: th.dataset.name });
    });
    chooser(table, columns); // on a phone the headers are not shown
  }

  // a printed page has everything that can be opened
  const closed = [];
  addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details:not([open])")) {
      one.open = true;
      closed.push(one);
    }
  });
  addEventListener("afterprint", () => closed.splice(0).forEach((one) => (one.open = false)));
})();
