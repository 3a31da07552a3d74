// Small SVG charts: scales, axes, lines, and what lies at the pointer.

// Wilson's 95 % interval of a proportion.
function wilson(successes, trials) {
  const z2 = 1.959964 ** 2;
  const p = successes / trials;
  const middle = p + z2 / (2 * trials);
  const half = Math.sqrt(z2 * ((p * (1 - p)) / trials + z2 / (4 * trials * trials)));
  const scale = 1 + z2 / trials;
  // 0 and 1 are exact bounds there, which rounding would miss.
  return [
    successes === 0 ? 0 : Math.max(0, (middle - half) / scale),
    successes === trials ? 1 : Math.min(1, (middle + half) / scale),
  ];
}

// Round values that divide [low, top] into about n steps.
function ticks(top, n, low = 0) {
  const raw = (top - low) / n;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5].find((s) => s * power >= raw) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  const steps = Math.floor(top / step + 1e-9) - first;
  return Array.from({ length: steps + 1 }, (_, i) => (first + i) * step);
}

function powers(low, top) {
  const out = [];
  for (let e = Math.ceil(Math.log10(low) - 1e-9); 10 ** e <= top * (1 + 1e-9); e += 1)
    out.push(10 ** e);
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

// From the values of an axis {top, low, log?} to [0, 1], and back.
function scale({ top, low = 0, log }) {
  return log
    ? {
        to: (value) => Math.log(Math.max(value, low) / low) / Math.log(top / low),
        from: (share) => low * (top / low) ** share,
      }
    : { to: (value) => (value - low) / (top - low), from: (share) => low + share * (top - low) };
}

// Axes and scales of one chart. y is {top, low, log?, ticks, format}, and x {…, label, format?};
// low is 0 unless given, a logarithmic axis needs it.
function plot(width, height, x, y, label) {
  const edge = { left: 52, right: 14, top: 10, bottom: 40 };
  const right = width - edge.right;
  const bottom = height - edge.bottom;
  const [across, up] = [scale(x), scale(y)];
  const toX = (value) => edge.left + across.to(value) * (right - edge.left);
  const toY = (value) => bottom - Math.min(1, up.to(value)) * (bottom - edge.top);
  const fromX = (place) =>
    across.from(Math.min(1, Math.max(0, (place - edge.left) / (right - edge.left))));
  const format = x.format ?? ((value) => figure(Number(value.toFixed(6))));
  const root = svg("svg", {
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": label,
  });
  for (const tick of y.ticks) {
    root.append(
      svg("line", { class: "grid", x1: edge.left, x2: right, y1: toY(tick), y2: toY(tick) }),
      svg(
        "text",
        { class: "tick", x: edge.left - 8, y: toY(tick) + 4, "text-anchor": "end" },
        y.format(tick),
      ),
    );
  }
  for (const tick of x.ticks) {
    root.append(
      svg(
        "text",
        { class: "tick", x: toX(tick), y: bottom + 17, "text-anchor": "middle" },
        format(tick),
      ),
    );
  }
  root.append(
    svg("line", { class: "axis", x1: edge.left, x2: right, y1: bottom, y2: bottom }),
    svg(
      "text",
      { class: "label", x: (edge.left + right) / 2, y: height - 4, "text-anchor": "middle" },
      x.label,
    ),
  );
  return { root, toX, toY, fromX, left: edge.left, right, top: edge.top, bottom };
}

function path(points, attributes) {
  const d = points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  return svg("path", { d, fill: "none", ...attributes });
}

// Over a plot: tell what lies at the pointer. `lines(value)` gives strings for an x value.
function hover(frame, lines) {
  const tip =
    document.getElementById("tip") ??
    document.body.appendChild(el("div", { id: "tip", "aria-hidden": "true" }));
  const cover = svg("rect", {
    x: frame.left,
    y: frame.top,
    width: frame.right - frame.left,
    height: frame.bottom - frame.top,
    fill: "transparent",
  });
  cover.addEventListener("pointermove", (event) => {
    const box = frame.root.getBoundingClientRect();
    const value = frame.fromX(event.clientX - box.left);
    tip.replaceChildren(...lines(value).map((line) => el("div", {}, line)));
    tip.style.display = "block";
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 10)}px`;
  });
  cover.addEventListener("pointerleave", () => {
    tip.style.display = "none";
  });
  frame.root.append(cover);
}
