// The data of the page, and how an arm looks: a colour, a dash and a mark of its own, so that no
// arm is told by colour alone. Text reaches the page as text nodes only.

const data = JSON.parse(document.getElementById("data").textContent);
const declared = data.declared;

// The rows of a figure as objects.
function rowsOf(name) {
  const { columns, rows } = data.figures[name];
  return rows.map((row) => Object.fromEntries(row.map((value, i) => [columns[i], value])));
}

const isEmpty = (name) => name in data.empty;

// A table of some rows: for each column, its head and the cell of a row.
function drawTable(id, rows, columns) {
  const cells = rows.map((row, i) => columns.map(([, cell]) => cell(row, rows[i - 1])));
  put(id, table(columns.map(([head]) => head), cells));
}

const DASHES = [null, "7 3", "2 3", "9 3 2 3", "4 2", "12 4"];
const SHAPES = [
  "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0 -4.5 0Z",
  "M-4 -4H4V4H-4Z",
  "M0 -5L5 4H-5Z",
  "M0 -5.5L5.5 0L0 5.5L-5.5 0Z",
  "M0 5L5 -4H-5Z",
  "M-5 -1.5H-1.5V-5H1.5V-1.5H5V1.5H1.5V5H-1.5V1.5H-5Z",
];
// The arms of conf/data; any other name has the hue that its hash says.
const COLORS = new Map([
  ["unfiltered", "var(--c5)"],
  ["filtered", "var(--c0)"],
  ["pareto", "var(--c1)"],
  ["threshold", "var(--c2)"],
  ["random", "var(--c3)"],
]);

const armIndex = (arm) => declared.arms.indexOf(arm);
const ink = (arm) => `ink${armIndex(arm)}`;
const form = (arm) => armIndex(arm) % SHAPES.length;
const dash = (arm) => DASHES[form(arm)];

// FNV-1a and a step of Murmur's finalizer: by name alone, so that an arm has its colour in every
// study, and names that differ in one digit are far apart.
function hue(name) {
  const hash = [...name].reduce(
    (sum, letter) => Math.imul(sum ^ letter.codePointAt(0), 0x01000193) >>> 0,
    0x811c9dc5,
  );
  return ((Math.imul(hash ^ (hash >>> 15), 0x85ebca6b) >>> 0) * 360) / 2 ** 32;
}

const inks = new CSSStyleSheet();
for (const arm of declared.arms)
  inks.insertRule(
    `.${ink(arm)} { color: ${COLORS.get(arm) ?? `oklch(var(--arm) ${hue(arm).toFixed(1)})`}; }`,
  );
document.adoptedStyleSheets = [inks];

function mark(arm, x, y, hollow = false) {
  return svg("path", {
    class: `mark ${arm === null ? "plain" : ink(arm)}${hollow ? " hollow" : ""}`,
    d: SHAPES[arm === null ? 3 : form(arm)],
    transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`,
  });
}

// The legend of arms: line and mark as they are drawn.
function armLegend(id, arms) {
  put(
    id,
    arms.map((arm) =>
      el(
        "span",
        { class: "arm" },
        svg(
          "svg",
          { width: 34, height: 14, viewBox: "0 0 34 14", "aria-hidden": "true" },
          svg("line", {
            class: `mean-line ${ink(arm)}`,
            x1: 0,
            x2: 34,
            y1: 7,
            y2: 7,
            "stroke-dasharray": dash(arm),
          }),
          mark(arm, 17, 7),
        ),
        arm,
      ),
    ),
  );
}

const armName = ({ arm, variant }) => (variant ? `${arm}@${variant}` : arm);

// Three significant digits, as in the verdict; with a sign where it is a difference. What only
// rounding made is 0.
function digits(value, signed = false) {
  if (value === null || value === undefined) return "–";
  if (Math.abs(value) < 1e-12) value = 0;
  const places = value === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  const text = Math.abs(value).toFixed(Math.min(places, 12));
  return `${value < 0 ? "−" : signed && value > 0 ? "+" : ""}${text}`;
}

const between = ({ low, high }, signed = true) =>
  low === null || low === undefined
    ? "unknown"
    : `${digits(low, signed)} to ${digits(high, signed)}`;

const chanceOf = (p) => (p === null || p === undefined ? "–" : String(Number(p.toPrecision(2))));

// A figure at the top of a page.
const tile = (title, value, detail) =>
  el(
    "div",
    { class: "tile" },
    el("span", {}, title),
    el("strong", {}, value),
    el("span", { class: "interval" }, detail),
  );

const electricity = (kwh) => (kwh < 0.1 ? `${digits(1000 * kwh)} Wh` : `${digits(kwh)} kWh`);

// A large amount: 8.2M, 51T, 5.1e13.
const amount = (value) =>
  value === null || value === undefined
    ? "–"
    : value >= 1e15
      ? value.toExponential(1).replace("e+", "e")
      : short.format(value);

// A figure's rows as CSV text, and a button that saves it.
function csvText({ columns, rows }) {
  const cell = (value) => {
    if (value === null) return "";
    const text = typeof value === "boolean" ? (value ? "True" : "False") : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns, ...rows].map((row) => `${row.map(cell).join(",")}\n`).join("");
}

function csvButton(name) {
  const button = el(
    "button",
    { type: "button", class: "csv", title: `figures/${name}.csv` },
    "CSV",
  );
  button.addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([csvText(data.figures[name])]));
    el("a", { href: address, download: `${name}.csv` }).click();
    URL.revokeObjectURL(address);
  });
  return button;
}

for (const box of document.querySelectorAll("figure[data-csv]"))
  if (data.figures[box.dataset.csv].rows.length)
    box.querySelector("figcaption").append(csvButton(box.dataset.csv));

// Options of a selection; `choose` is called with the chosen one.
function selection(id, names, choose, shown = (name) => name) {
  const box = document.getElementById(id);
  box.replaceChildren(...names.map((name, i) => el("option", { value: i }, shown(name))));
  box.addEventListener("change", () => choose(names[Number(box.value)]));
  box.closest("label").hidden = names.length < 2;
}

const unique = (values) => [...new Set(values)];
