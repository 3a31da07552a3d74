// The page's panels, each a table of the rows from Python, before the provenance.

function drawPanels(panels) {
  const cell = (value) =>
    value === null ? "–" : typeof value === "number" ? figure(value) : String(value);
  for (const { name, title, hint, columns, rows } of panels) {
    const numeric = columns.map((_, i) => rows.some((row) => typeof row[i] === "number"));
    const heads = columns.map((column, i) => (numeric[i] ? "#" : "") + words(column));
    document.querySelector("main > section:last-child").before(
      el(
        "section",
        { id: `panel-${name}` },
        el("h2", {}, title),
        hint ? el("p", { class: "hint" }, hint) : null,
        scrolling(heads, rows.map((row) => row.map(cell))),
      ),
    );
  }
}

drawPanels(data.panels);
