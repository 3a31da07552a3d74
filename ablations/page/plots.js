// Charts of arms: lines with bands over an axis, rows of estimates, and a heat map.

const range = (values) => [Math.min(...values), Math.max(...values)];

// An axis around some values, with a little room; within `limits`.
function around(values, { log = false, n = 5, format, limits = [-Infinity, Infinity] } = {}) {
  const known = values.filter((value) => value !== null && value !== undefined);
  let [low, top] = known.length ? range(known) : [0, 1];
  if (log) {
    [low, top] = [low / 1.08, top * 1.08];
    return { log, low, top, ticks: logTicks(low, top, n), format };
  }
  const room = (top - low || Math.abs(top) || 1) * 0.06;
  [low, top] = [Math.max(limits[0], low - room), Math.min(limits[1], top + room)];
  return { low, top, ticks: ticks(top, n, low), format };
}

// Powers of ten, with their doubles and fives where these alone are few.
function logTicks(low, top, n) {
  for (const steps of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]]) {
    const all = [];
    for (let e = Math.floor(Math.log10(low)); 10 ** e <= top; e += 1)
      all.push(...steps.map((step) => step * 10 ** e));
    const inside = all.filter((tick) => tick >= low && tick <= top);
    if (inside.length >= Math.min(3, n)) {
      const every = Math.ceil(inside.length / n);
      return inside.filter((_, i) => i % every === 0);
    }
  }
  return [low, top];
}

// Lines over an axis: `lines` are {arm, points: [[x, y]], band: [[x, low, high]], thin, dots}.
function linePlot(width, { lines, x, y, label, tell, level }) {
  const frame = plot(width, 270, x, y, label);
  const inside = (b) => Math.max(y.low, Math.min(y.top, b));
  const at = ([a, b]) => [frame.toX(a), frame.toY(inside(b))];
  if (level !== null)
    frame.root.append(
      svg("line", {
        class: "nought",
        x1: frame.left,
        x2: frame.right,
        y1: frame.toY(level),
        y2: frame.toY(level),
      }),
    );
  for (const { arm, band } of lines)
    if (band?.length > 1) {
      const edge = [
        ...band.map(([a, low]) => at([a, low])),
        ...band.map(([a, , high]) => at([a, high])).reverse(),
      ];
      const area = path(edge, { class: `band ${ink(arm)}` });
      area.setAttribute("fill", "currentColor");
      frame.root.append(area);
    }
  for (const { arm, points, thin } of lines)
    frame.root.append(
      path(points.map(at), {
        class: `${thin ? "run-line" : "mean-line"} ${ink(arm)}`,
        "stroke-dasharray": thin ? null : dash(arm),
      }),
    );
  for (const { arm, points, dots } of lines)
    if (dots) frame.root.append(...points.map((point) => mark(arm, ...at(point))));
  hover(frame, tell);
  return frame.root;
}

// The point of a line that lies nearest to an x value.
const nearest = (points, value) =>
  points.reduce((best, point) =>
    Math.abs(point[0] - value) < Math.abs(best[0] - value) ? point : best,
  );

// Rows of estimates on a common axis. A row is {name, group?} or {name, marks: [{arm, value, low,
// high, hollow, title}], text}; `guess` of a row is where its upright line stands. With `bars` they
// stand on the low end of the axis.
function forest(width, { rows, axis, zero, matters, bars, label }) {
  const narrow = width < 560;
  const text = Math.max(0, ...rows.map((row) => row.text?.length ?? 0));
  const edge = {
    left: Math.min(230, width * (narrow ? 0.36 : 0.26)),
    right: narrow ? 10 : Math.min(width * 0.32, 26 + 6.8 * text),
  };
  const [line, top] = [26, 8];
  // Where there is no room beside a row, its text goes below, if it fits there.
  const below = (row) => (narrow && row.text && row.text.length * 6.8 < width ? 15 : 0);
  const marked = rows.map((row) => line + Math.max(0, (row.marks?.length ?? 1) - 1) * 11);
  const heights = rows.map((row, i) => marked[i] + below(row));
  const bottom = top + heights.reduce((sum, each) => sum + each, 0);
  const place = scale(axis);
  const toX = (value) =>
    edge.left + Math.min(1, Math.max(0, place.to(value))) * (width - edge.left - edge.right);
  const root = svg("svg", {
    width,
    height: bottom + 40,
    viewBox: `0 0 ${width} ${bottom + 40}`,
    role: "img",
    "aria-label": label,
  });
  const upright = (kind, value, from = top, to = bottom) =>
    svg("line", { class: kind, x1: toX(value), x2: toX(value), y1: from, y2: to });
  if (matters)
    root.append(
      svg("rect", {
        class: "matters",
        x: toX(-matters),
        width: toX(matters) - toX(-matters),
        y: top,
        height: bottom - top,
      }),
    );
  for (const tick of axis.ticks)
    root.append(
      upright("grid", tick),
      svg(
        "text",
        { class: "tick", x: toX(tick), y: bottom + 17, "text-anchor": "middle" },
        figure(Number(tick.toPrecision(6))),
      ),
    );
  root.append(
    svg(
      "text",
      narrow
        ? { class: "label", x: width, y: bottom + 35, "text-anchor": "end" }
        : {
            class: "label",
            x: (edge.left + width - edge.right) / 2,
            y: bottom + 35,
            "text-anchor": "middle",
          },
      label,
    ),
  );
  if (zero) root.append(upright("nought", 0));
  let y = top;
  rows.forEach((row, i) => {
    const kind = row.marks ? "row-name" : "group-name";
    const room = Math.floor((edge.left - 10) / 7);
    const name = row.name.length > room ? `${row.name.slice(0, room - 1)}…` : row.name;
    root.append(
      svg(
        "text",
        { class: kind, x: 0, y: y + marked[i] / 2 + 4 },
        name,
        svg("title", {}, row.name),
      ),
    );
    if (row.guess !== null && row.guess !== undefined)
      root.append(upright("guess", row.guess, y + 2, y + marked[i] - 2));
    (row.marks ?? []).forEach((of, k) => {
      const at = y + line / 2 + k * 11;
      if (bars)
        root.append(
          svg("rect", {
            class: `bar ${ink(of.arm)}`,
            x: edge.left,
            width: toX(of.value) - edge.left,
            y: at - 5,
            height: 10,
          }),
        );
      if (of.low !== null && of.low !== undefined)
        root.append(
          svg("line", {
            class: `reach ${of.arm === null ? "plain" : ink(of.arm)}`,
            x1: toX(of.low),
            x2: toX(of.high),
            y1: at,
            y2: at,
          }),
        );
      const point = mark(of.arm, toX(of.value), at, of.hollow);
      point.append(svg("title", {}, of.title ?? ""));
      root.append(point);
    });
    const spot = below(row)
      ? { x: 0, y: y + heights[i] - 6 }
      : { x: width - edge.right + 14, y: y + heights[i] / 2 + 4 };
    if (row.text && (below(row) || !narrow))
      root.append(svg("text", { class: `row-value${below(row) ? " below" : ""}`, ...spot }, row.text));
    y += heights[i];
  });
  return root;
}

// A share against an even one: blue below, orange above, in steps of doubling up to fourfold.
function heat(ratio) {
  const level = Math.max(-1, Math.min(1, Math.log2(Math.max(ratio, 1e-9)) / 2));
  const color = level < 0 ? "var(--c0)" : "var(--c1)";
  return `color-mix(in srgb, ${color} ${Math.round(Math.abs(level) * 100)}%, var(--sunken))`;
}

// Layers × experts; `cells` are {layer, expert, share, of_even}.
function heatMap(width, cells, label) {
  const layers = 1 + Math.max(...cells.map((cell) => cell.layer));
  const experts = 1 + Math.max(...cells.map((cell) => cell.expert));
  const [left, top] = [58, 20];
  const side = Math.max(5, Math.min(34, (width - left - 4) / experts));
  const high = Math.max(12, Math.min(28, side));
  const size = { width: left + side * experts, height: top + high * layers + 4 };
  const root = svg("svg", {
    ...size,
    viewBox: `0 0 ${size.width} ${size.height}`,
    role: "img",
    "aria-label": label,
  });
  const every = Math.ceil(24 / side);
  for (let e = 0; e < experts; e += every)
    root.append(
      svg("text", { class: "tick", x: left + (e + 0.5) * side, y: 13, "text-anchor": "middle" }, e),
    );
  for (let l = 0; l < layers; l += 1)
    root.append(
      svg(
        "text",
        { class: "tick", x: left - 8, y: top + (l + 0.5) * high + 4, "text-anchor": "end" },
        `layer ${l}`,
      ),
    );
  for (const { layer, expert, share, of_even } of cells) {
    const cell = svg(
      "rect",
      { x: left + expert * side, y: top + layer * high, width: side - 1, height: high - 1 },
      svg(
        "title",
        {},
        `layer ${layer}, expert ${expert}: ${percent(share, 1)}, ${figure(of_even)}× even`,
      ),
    );
    cell.style.fill = heat(of_even);
    root.append(cell);
  }
  return root;
}
