// Elements, number formats and small SVG charts. Text reaches the page as text nodes only.

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
  while (Math.abs(bytes) >= 1000 && unit < units.length - 1) {
    bytes /= 1000;
    unit += 1;
  }
  return `${unit ? bytes.toPrecision(3) : bytes} ${units[unit]}`;
}

function percent(part, of) {
  if (!of) return "–";
  const share = (100 * part) / of;
  return `${share >= 100 ? 100 : share === 0 ? 0 : share >= 99.95 ? 99.9 : share < 0.001 ? share.toExponential(0) : Number(share.toPrecision(3))} %`;
}

// A score, rate or figure: up to four significant digits, whole numbers as they are.
function figure(value) {
  if (Number.isInteger(value)) return number(value);
  const size = Math.abs(value);
  return size >= 1e-4 && size < 1e6 ? String(Number(value.toPrecision(4))) : value.toExponential(2);
}

// Wilson's 95 % interval of a proportion.
function wilson(successes, trials) {
  const z2 = 1.959964 ** 2;
  const p = successes / trials;
  const middle = p + z2 / (2 * trials);
  const half = Math.sqrt(z2 * ((p * (1 - p)) / trials + z2 / (4 * trials * trials)));
  const scale = 1 + z2 / trials;
  return [Math.max(0, (middle - half) / scale), Math.min(1, (middle + half) / scale)];
}

// Round values that divide [0, top] into about n steps.
function ticks(top, n) {
  const raw = top / n;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5].find((s) => s * power >= raw) ?? 10);
  return Array.from({ length: Math.floor(top / step + 1e-9) + 1 }, (_, i) => i * step);
}

function powers(low, top) {
  const out = [];
  for (let e = Math.ceil(Math.log10(low) - 1e-9); 10 ** e <= top * (1 + 1e-9); e += 1) out.push(10 ** e);
  const every = Math.ceil(out.length / 6);
  return out.filter((_, i) => (out.length - 1 - i) % every === 0);
}

// Draw into a box now and whenever its width changes; returns a function that draws again.
function chart(id, draw) {
  const box = document.getElementById(id);
  let width = 0;
  const redraw = () => box.replaceChildren(draw(width));
  new ResizeObserver(() => {
    if (box.clientWidth && box.clientWidth !== width) {
      width = box.clientWidth;
      redraw();
    }
  }).observe(box);
  return () => width && redraw();
}

// Axes and scales of one chart. y is {top, low?, log?, ticks, format}; x is {top, ticks, label}.
function plot(width, height, x, y, label) {
  const edge = { left: 52, right: 14, top: 10, bottom: 40 };
  const right = width - edge.right;
  const bottom = height - edge.bottom;
  const toX = (value) => edge.left + (value / x.top) * (right - edge.left);
  const level = y.log
    ? (value) => Math.log(Math.max(value, y.low) / y.low) / Math.log(y.top / y.low)
    : (value) => value / y.top;
  const toY = (value) => bottom - Math.min(1, level(value)) * (bottom - edge.top);
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const tick of y.ticks) {
    root.append(
      svg("line", { class: "grid", x1: edge.left, x2: right, y1: toY(tick), y2: toY(tick) }),
      svg("text", { class: "tick", x: edge.left - 8, y: toY(tick) + 4, "text-anchor": "end" }, y.format(tick)),
    );
  }
  for (const tick of x.ticks) {
    root.append(svg("text", { class: "tick", x: toX(tick), y: bottom + 17, "text-anchor": "middle" }, figure(Number(tick.toFixed(6)))));
  }
  root.append(
    svg("line", { class: "axis", x1: edge.left, x2: right, y1: bottom, y2: bottom }),
    svg("text", { class: "label", x: (edge.left + right) / 2, y: height - 4, "text-anchor": "middle" }, x.label),
  );
  return { root, toX, toY, left: edge.left, right, top: edge.top, bottom };
}

function path(points, attributes) {
  const d = points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  return svg("path", { d, fill: "none", ...attributes });
}

// Over a plot: tell what lies at the pointer. `lines(value)` gives strings for an x value.
function hover(frame, top, lines) {
  const tip = document.getElementById("tip") ?? document.body.appendChild(el("div", { id: "tip", "aria-hidden": "true" }));
  const cover = svg("rect", { x: frame.left, y: frame.top, width: frame.right - frame.left, height: frame.bottom - frame.top, fill: "transparent" });
  cover.addEventListener("pointermove", (event) => {
    const box = frame.root.getBoundingClientRect();
    const value = ((event.clientX - box.left - frame.left) / (frame.right - frame.left)) * top;
    tip.replaceChildren(...lines(Math.min(top, Math.max(0, value))).map((line) => el("div", {}, line)));
    tip.style.display = "block";
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 10)}px`;
  });
  cover.addEventListener("pointerleave", () => { tip.style.display = "none"; });
  frame.root.append(cover);
}

function legend(id, entries) {
  put(id, entries.map(([kind, text]) => el("span", {}, el("i", { class: kind }), text)));
}

// A row of choices of which one is on; `choose(index)` is called when another is clicked.
function segments(id, names, chosen, choose) {
  put(id, names.map((name, i) => {
    const input = el("input", { type: "radio", name: id, value: i });
    input.checked = i === chosen;
    input.addEventListener("change", () => choose(i));
    return el("label", {}, input, el("span", {}, name));
  }));
}

// A table from heads and rows. A cell is text, a node, or {text, value, title}; heads starting
// with "#" are columns of numbers.
function table(heads, rows, footer) {
  const numeric = heads.map((head) => typeof head === "string" && head.startsWith("#"));
  const row = (cells, tag) => el("tr", {}, cells.map((cell, i) => {
    const kind = numeric[i] ? "n" : null;
    if (cell instanceof Node || typeof cell !== "object") return el(tag, { class: kind }, cell);
    return el(tag, { class: kind, "data-value": cell.value, "data-name": cell.name, title: cell.title }, cell.text);
  }));
  return el("table", {},
    el("thead", {}, row(heads.map((head) => (typeof head === "string" ? head.replace(/^#/, "") : head)), "th")),
    el("tbody", {}, rows.map((cells) => row(cells, "td"))),
    footer ? el("tfoot", {}, row(footer, "td")) : null);
}

// Any JSON value: mappings as two columns, lists of mappings as tables, text as text.
function view(value) {
  if (value === null || value === undefined) return el("span", { class: "faint" }, "–");
  if (typeof value === "number") return el("span", { class: "num" }, figure(value));
  if (typeof value !== "object") return el("span", {}, String(value));
  const plain = (item) => item === null || typeof item !== "object";
  if (Array.isArray(value)) {
    if (!value.length) return view(null);
    if (value.every((item) => !plain(item) && !Array.isArray(item))) {
      const numeric = (head) => value.every((item) => typeof (item[head] ?? 0) === "number");
      const heads = [...new Set(value.flatMap(Object.keys))].sort((a, b) => numeric(a) - numeric(b));
      return el("div", { class: "scroll" }, table(heads.map((head) => `${numeric(head) ? "#" : ""}${words(head)}`), value.map((item) => heads.map((head) => view(item[head])))));
    }
    if (value.every(plain)) return el("span", { class: "num" }, value.map((item) => (typeof item === "number" ? figure(item) : String(item))).join(", "));
    return el("ul", {}, value.map((item) => el("li", {}, view(item))));
  }
  const entries = Object.entries(value);
  if (!entries.length) return view(null);
  const rows = entries.filter(([, item]) => !entries.length || plain(item) || (Array.isArray(item) && item.every(plain)));
  const deep = entries.filter((entry) => !rows.includes(entry));
  // Mappings of equal keys read best as one table.
  const alike = deep.length > 1 && deep.every(([, item]) => !Array.isArray(item) && Object.values(item).every(plain) && Object.keys(item).join() === Object.keys(deep[0][1]).join());
  return el("div", { class: "view" },
    rows.length ? el("dl", {}, rows.map(([key, item]) => [el("dt", {}, words(key)), el("dd", {}, view(item))])) : null,
    alike
      ? view(deep.map(([key, item]) => ({ " ": key, ...item })))
      : deep.map(([key, item]) => el("div", { class: "nested" }, el("h4", {}, words(key)), view(item))));
}

const words = (key) => key.replaceAll("_", " ");
