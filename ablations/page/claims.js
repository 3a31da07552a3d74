// GLaM's claims: each with what was measured for it and what that says.

function drawClaims() {
  if (isEmpty("claims")) return;
  const rows = rowsOf("claims");
  const answer = (row) => {
    const [word, ...why] = row.answer.split(": ");
    return el("span", {}, el("b", {}, word), why.length ? `: ${why.join(": ")}` : "");
  };
  const line = (row) =>
    row.measured_on === null
      ? el("li", {}, answer(row))
      : el(
          "li",
          {},
          el("span", {}, row.measured_on, el("span", { class: "faint" }, `${row.arms}, ${row.model}`)),
          el(
            "span",
            { class: "interval" },
            row.unit === "times the tokens"
              ? `${digits(row.difference)} times (${between(row, false)})`
              : `${digits(row.difference, true)} ${row.unit} (${between(row)})`,
          ),
          answer(row),
        );
  put(
    "claims",
    unique(rows.map((row) => row.claim)).map((claim) => [
      el("h3", {}, claim),
      el("ul", { class: "claim" }, rows.filter((row) => row.claim === claim).map(line)),
    ]),
  );
}

drawClaims();
