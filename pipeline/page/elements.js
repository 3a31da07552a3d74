// Elements, numbers and tables. Text reaches the page as text nodes only.

function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

function put(id, ...children) {
  document.getElementById(id).replaceChildren(...children.flat(Infinity));
}

const whole = new Intl.NumberFormat("en-US");
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });
const number = (value) => whole.format(value);

function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (Math.abs(bytes) >= 999.5 && unit < units.length - 1) {
    bytes /= 1000;
    unit += 1;
  }
  return `${unit ? bytes.toPrecision(3) : bytes} ${units[unit]}`;
}

// A percentage with three digits; what is not quite 0 or 100 % does not look like it.
function percent(part, of) {
  if (!of) return "–";
  const share = (100 * part) / of;
  if (share > 99.9 && share < 100) return "> 99.9 %";
  if (share > 0 && share < 0.001) return "< 0.001 %";
  return `${Number(share.toPrecision(3))} %`;
}

// A score, rate or figure: up to four significant digits, whole numbers as they are.
function figure(value) {
  if (value < 0) return `−${figure(-value)}`;
  if (Number.isInteger(value)) return number(value);
  return value >= 1e-4 && value < 1e6
    ? String(Number(value.toPrecision(4)))
    : value.toExponential(2);
}

function legend(id, entries) {
  put(id, entries.map(([kind, text]) => el("span", {}, el("i", { class: kind }), text)));
}

// A row of choices of which one is on; `choose(index)` is called when another is clicked.
function segments(id, names, chosen, choose) {
  put(
    id,
    names.map((name, i) => {
      const input = el("input", { type: "radio", name: id, value: i });
      input.checked = i === chosen;
      input.addEventListener("change", () => choose(i));
      return el("label", {}, input, el("span", {}, name));
    }),
  );
}

// A table from heads and rows. A cell is text, a node, or {text, value, name, title}; heads
// starting with "#" are columns of numbers.
function table(heads, rows, footer) {
  const numeric = heads.map((head) => typeof head === "string" && head.startsWith("#"));
  const box = (cell, kind, tag) => {
    if (cell instanceof Node || typeof cell !== "object") return el(tag, { class: kind }, cell);
    const { text, value, name, title } = cell;
    return el(tag, { class: kind, "data-value": value, "data-name": name, title }, text);
  };
  const row = (cells, tag) =>
    el("tr", {}, cells.map((cell, i) => box(cell, numeric[i] ? "n" : null, tag)));
  const names = heads.map((head) => (typeof head === "string" ? head.replace(/^#/, "") : head));
  const body = rows.map((cells) => row(cells, "td"));
  return el(
    "table",
    {},
    el("thead", {}, row(names, "th")),
    el("tbody", {}, body),
    footer ? el("tfoot", {}, row(footer, "td")) : null,
  );
}

// A wide or long table that scrolls by itself.
const scrolling = (...of) => el("div", { class: "scroll" }, table(...of));

// A bar of a share, and the share in words.
function meter(part, of, shown = percent(part, of)) {
  const bar = el("span", { class: "meter" }, el("i", {}));
  bar.firstChild.style.width = `${of ? (100 * part) / of : 0}%`;
  return el("span", {}, bar, el("span", { class: "portion" }, shown));
}

// A part of the page that opens with a click.
const fold = (title, ...content) =>
  el("details", { class: "fold" }, el("summary", {}, title), content);

const listen = (id, event, act) => document.getElementById(id).addEventListener(event, act);

// A sorted copy of some items.
function sorted(items, key, down) {
  const order = (a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0);
  return [...items].sort((a, b) => (down ? order(b, a) : order(a, b)));
}

// Heads of a table that sort it; `choose` is called with the sorting {column, down} that is wanted.
function sortHeads(names, { column, down }, choose) {
  return names.map((name, i) => {
    const button = el(
      "button",
      { type: "button", "aria-label": `sort by ${name}` },
      name,
      el("span", {}, column !== i ? "" : down ? " ↓" : " ↑"),
    );
    button.addEventListener("click", () =>
      choose({ column: i, down: column === i ? !down : i > 0 }),
    );
    return button;
  });
}

// Any JSON value: mappings as two columns, lists of mappings as tables, {value, low, high} as an
// estimate with its interval.
function view(value) {
  if (value === null || value === undefined) return el("span", { class: "faint" }, "–");
  if (typeof value === "number") return el("span", { class: "num" }, figure(value));
  if (typeof value !== "object") return el("span", {}, String(value));
  if (Array.isArray(value)) return viewList(value);
  if (isEstimate(value)) {
    const { value: middle, low, high } = value;
    const range = el("span", { class: "interval" }, ` ${figure(low)} to ${figure(high)}`);
    return el("span", { class: "num" }, figure(middle), range);
  }
  const entries = Object.entries(value);
  if (!entries.length) return view(null);
  const flat = entries.filter(([, item]) => isFlat(item));
  const deep = entries.filter(([, item]) => !isFlat(item));
  const rows = flat.map(([key, item]) => [el("dt", {}, words(key)), el("dd", {}, view(item))]);
  return el(
    "div",
    { class: "view" },
    rows.length ? el("dl", {}, rows) : null,
    deep.map(([key, item]) => [el("h4", {}, words(key)), view(item)]),
  );
}

function viewList(values) {
  if (!values.length) return view(null);
  if (values.every(isPlain))
    return el(
      "span",
      { class: "num" },
      values.map((item) => (typeof item === "number" ? figure(item) : String(item))).join(", "),
    );
  if (values.some((item) => isPlain(item) || Array.isArray(item)))
    return el("ul", {}, values.map((item) => el("li", {}, view(item))));
  const keys = [...new Set(values.flatMap(Object.keys))];
  const numeric = (key) =>
    values.every((item) => typeof (item[key] ?? 0) === "number" || isEstimate(item[key]));
  const columns = [...keys.filter((key) => !numeric(key)), ...keys.filter(numeric)];
  return scrolling(
    columns.map((key) => `${numeric(key) ? "#" : ""}${words(key)}`),
    values.map((item) => columns.map((key) => view(item[key]))),
  );
}

const isPlain = (item) => item === null || typeof item !== "object";
const isEstimate = (item) =>
  !isPlain(item) && ["value", "low", "high"].every((key) => typeof item[key] === "number");
const isFlat = (item) =>
  isPlain(item) || isEstimate(item) || (Array.isArray(item) && item.every(isPlain));
const words = (key) => key.replaceAll("_", " ");
