// What the run did, what another setting would keep, and the charts of both.
// Everything is drawn from the JSON in #data: see report_data.py.

const data = JSON.parse(document.getElementById("data").textContent);
const NONE = [0, 0, 0];
const SYMBOLS = { pareto: "α", threshold: "threshold", random: "rate" };
const NAMES = { pareto: "Pareto", threshold: "Threshold", random: "Random", all: "Keep all" };
const own = data.rule;
const state = {
  source: Math.max(
    0,
    data.sources.findIndex((source) => source.filtered),
  ),
  rule: own.name,
  stop: ownStop(own.name),
};

function ownStop(rule) {
  return rule === own.name
    ? (data.stops[rule] ?? [own.parameter]).indexOf(own.parameter)
    : Math.floor(data.stops[rule].length / 2);
}

// The setting that the control stands at.
function setting() {
  return { name: state.rule, parameter: (data.stops[state.rule] ?? [own.parameter])[state.stop] };
}

const moved = () => state.rule !== own.name || setting().parameter !== own.parameter;
const outcome = (source, name) => source.outcomes[name] ?? NONE;
const add = (rows) => rows.reduce((sum, row) => sum.map((value, i) => value + row[i]), NONE);

function describe({ name, parameter }) {
  return name === "all" ? "keep all" : `${SYMBOLS[name]} = ${figure(parameter)}`;
}

// Documents, bytes and words that a source keeps at the chosen setting.
function yieldOf(source) {
  if (!source.filtered || !moved()) return outcome(source, "kept");
  return source.curves[state.rule].map((counts) => counts[state.stop]);
}

// The chance that a rule gives to a score.
function law({ name, parameter, ties = 1 }, score) {
  if (name === "pareto") return (2 - score) ** -parameter;
  if (name === "threshold") return score === parameter ? ties : Number(score > parameter);
  return name === "random" ? parameter : 1;
}

const documents = (n, name) => ({ text: number(n), value: n, name });
const bytes = (n, name) => ({ text: size(n), value: n, name, title: `${number(n)} bytes` });
const mark = (source) =>
  el(
    "span",
    {},
    el("b", {}, source.name),
    el("span", { class: "faint" }, source.filtered ? " filtered" : " whole"),
  );

function drawControl() {
  const rules = Object.keys(data.stops).concat(own.name in data.stops ? [] : [own.name]);
  segments(
    "rules",
    rules.map((name) => NAMES[name]),
    rules.indexOf(state.rule),
    (i) => {
      state.rule = rules[i];
      state.stop = ownStop(state.rule);
      update();
    },
  );
  const stops = data.stops[state.rule] ?? [];
  const [range, value] = [document.getElementById("stop"), document.getElementById("value")];
  range.max = Math.max(0, stops.length - 1);
  range.value = state.stop;
  range.disabled = value.disabled = !stops.length;
  range.setAttribute("aria-valuetext", describe(setting()));
  value.min = stops[0] ?? 0;
  value.max = stops.at(-1) ?? 1;
  value.step = state.rule === "pareto" ? 0.1 : 0.01;
  value.value = setting().parameter;
  put("symbol", SYMBOLS[state.rule] ?? "");
  put("own", `This run: ${describe(own)}`);
  document.getElementById("own").disabled = !moved();
}

function listenToControl() {
  document.getElementById("stop").addEventListener("input", (event) => {
    state.stop = Number(event.target.value);
    update();
  });
  document.getElementById("value").addEventListener("change", (event) => {
    const wanted = Number(event.target.value);
    const stops = data.stops[state.rule];
    const distance = (i) => Math.abs(stops[i] - wanted);
    state.stop = stops.reduce((best, _, i) => (distance(i) < distance(best) ? i : best), 0);
    update();
  });
  document.getElementById("own").addEventListener("click", () => {
    state.rule = own.name;
    state.stop = ownStop(own.name);
    update();
  });
  for (const [id, redraw] of Object.entries({ curve, histogram, rates })) {
    document.getElementById(`${id}-log`).addEventListener("change", redraw);
  }
  const picker = document.getElementById("source");
  picker.append(...data.sources.map((source, i) => el("option", { value: i }, source.name)));
  picker.value = state.source;
  picker.addEventListener("change", () => {
    state.source = Number(picker.value);
    drawSource();
  });
}

function drawYield() {
  const row = (name, read, kept, before) => {
    const change = kept[0] - before[0];
    const sign = change > 0 ? "+" : change < 0 ? "−" : "±";
    return [
      name,
      documents(kept[0], "documents"),
      percent(kept[0], read[0]),
      bytes(kept[1], "bytes"),
      { text: number(kept[2]), value: kept[2], name: "words" },
      el(
        "span",
        { class: change > 0 ? "more" : change < 0 ? "less" : "faint" },
        `${sign}${number(Math.abs(change))}${before[0] && change ? ` (×${figure(Number((kept[0] / before[0]).toPrecision(3)))})` : ""}`,
      ),
    ];
  };
  const all = (get) => add(data.sources.map(get));
  put(
    "yield",
    table(
      [
        `At ${describe(setting())}`,
        "#Documents",
        "#Share of read",
        "#Text",
        "#Words",
        "#Documents against this run",
      ],
      data.sources.map((source) =>
        row(mark(source), outcome(source, "read"), yieldOf(source), outcome(source, "kept")),
      ),
      row(
        "All",
        all((source) => outcome(source, "read")),
        all(yieldOf),
        all((source) => outcome(source, "kept")),
      ),
    ),
  );
  const { name, parameter } = setting();
  const flag = {
    pareto: ` --alpha ${parameter}`,
    threshold: ` --threshold ${parameter}`,
    random: ` --rate ${parameter}`,
    all: "",
  }[name];
  put(
    "command",
    data.write === "all"
      ? [
          "To have it: ",
          el(
            "code",
            {},
            `python pipeline/decide.py --scored THIS_FOLDER --output NEW_FOLDER --rule ${name}${flag}`,
          ),
        ]
      : "This run wrote the kept documents alone; a run with --write all can be decided anew.",
  );
}

const isLog = (id) => document.getElementById(`${id}-log`).checked;

// The y axis of a chart of shares.
function shareAxis(id) {
  if (!isLog(id))
    return { top: 1.02, ticks: [0, 0.25, 0.5, 0.75, 1], format: (v) => `${v * 100}%` };
  const low = 1e-4;
  const format = (v) => `${Number((v * 100).toPrecision(1))}%`;
  return { log: true, low, top: 1.1, ticks: powers(low, 1), format };
}

const curve = chart("curve", (width) => {
  const rule = state.rule in data.stops ? state.rule : "pareto";
  const stops = data.stops[rule];
  const top = stops.at(-1);
  const filtered = data.sources.filter((source) => source.filtered);
  const frame = plot(
    width,
    240,
    { top, ticks: ticks(top, Math.min(10, width / 60)), label: SYMBOLS[rule] },
    shareAxis("curve"),
    `Kept share of each filtered source against ${SYMBOLS[rule]}`,
  );
  filtered.forEach((source, i) => {
    const read = outcome(source, "read")[0] || 1;
    const points = source.curves[rule][0].map((n, k) => [frame.toX(stops[k]), frame.toY(n / read)]);
    frame.root.append(path(points, { class: `line series${i % 6}` }));
  });
  const line = (x, kind) =>
    frame.root.append(svg("line", { class: kind, x1: x, x2: x, y1: frame.top, y2: frame.bottom }));
  if (own.name === rule) line(frame.toX(own.parameter), "run");
  if (moved() && state.rule === rule) line(frame.toX(setting().parameter), "chosen");
  hover(frame, (value) => {
    const k = stops.reduce(
      (best, stop, i) => (Math.abs(stop - value) < Math.abs(stops[best] - value) ? i : best),
      0,
    );
    return [
      describe({ name: rule, parameter: stops[k] }),
      ...filtered
        .slice(0, 12)
        .map(
          (source) =>
            `${source.name}: ${number(source.curves[rule][0][k])} documents, ${percent(source.curves[rule][0][k], outcome(source, "read")[0])}`,
        ),
    ];
  });
  legend("curve-legend", [
    ...filtered.map((source, i) => [`dash series${i % 6}`, source.name]),
    ...(own.name === rule ? [["upright run", "this run"]] : []),
    ["upright chosen", "chosen setting"],
  ]);
  return frame.root;
});

const histogram = chart("histogram", (width) => {
  const source = data.sources[state.source];
  const counts = source.histogram;
  const bins = counts.length;
  const top = Math.max(1, ...counts) * 1.05;
  const frame = plot(
    width,
    260,
    { top: 1, ticks: ticks(1, 5), label: "quality score" },
    isLog("histogram")
      ? { log: true, low: 0.5, top, ticks: powers(1, top), format: (v) => short.format(v) }
      : { top, ticks: ticks(top, 5).filter(Number.isInteger), format: (v) => short.format(v) },
    `Histogram of the quality scores of ${source.name}`,
  );
  const bar = (n, i, kind) => {
    const x = frame.toX(i / bins);
    return svg("rect", {
      class: kind,
      x: x + 0.4,
      width: Math.max(0.8, frame.toX((i + 1) / bins) - x - 0.8),
      y: frame.toY(n),
      height: frame.bottom - frame.toY(n),
    });
  };
  counts.forEach((n, i) => n && frame.root.append(bar(n, i, "dropped")));
  source.kept_histogram.forEach((n, i) => n && frame.root.append(bar(n, i, "kept")));
  if (source.filtered && moved()) {
    const points = counts.flatMap((n, i) =>
      [i, i + 1].map((edge) => [
        frame.toX(edge / bins),
        frame.toY(n * law(setting(), (i + 0.5) / bins)),
      ]),
    );
    frame.root.append(path(points, { class: "chosen" }));
  }
  hover(frame, (value) => {
    const i = Math.min(bins - 1, Math.floor(value * bins));
    return [
      `score ${(i / bins).toFixed(2)} to ${((i + 1) / bins).toFixed(2)}`,
      `${number(counts[i])} documents`,
      `${number(source.kept_histogram[i])} kept (${percent(source.kept_histogram[i], counts[i])})`,
    ];
  });
  legend("histogram-legend", [
    ["box dropped", "reached the decision"],
    ["box kept", "kept by this run"],
    ...(source.filtered && moved() ? [["dash chosen", `expected at ${describe(setting())}`]] : []),
  ]);
  return frame.root;
});

// Keep rates in 20 bins: [mean score, kept, documents] of those that are not empty.
function rateBins(source) {
  const per = source.histogram.length / 20;
  return Array.from({ length: 20 }, (_, j) => {
    let [weighted, kept, n] = NONE;
    for (let i = j * per; i < (j + 1) * per; i += 1) {
      weighted += (source.histogram[i] * (i + 0.5)) / source.histogram.length;
      kept += source.kept_histogram[i];
      n += source.histogram[i];
    }
    return [weighted / n, kept, n];
  }).filter(([, , n]) => n);
}

const rates = chart("rates", (width) => {
  const source = data.sources[state.source];
  const frame = plot(
    width,
    260,
    { top: 1, ticks: ticks(1, 5), label: "quality score" },
    shareAxis("rates"),
    `Keep rate of ${source.name} by quality score`,
  );
  const rule = source.filtered ? own : { name: "all", parameter: 0 };
  const points = (of) =>
    Array.from({ length: 401 }, (_, i) => [frame.toX(i / 400), frame.toY(law(of, i / 400))]);
  frame.root.append(path(points(rule), { class: "line law" }));
  if (source.filtered && moved()) frame.root.append(path(points(setting()), { class: "chosen" }));
  for (const [score, kept, n] of rateBins(source)) {
    const x = frame.toX(score);
    const [from, to] = wilson(kept, n);
    frame.root.append(
      svg("line", { class: "whisker", x1: x, x2: x, y1: frame.toY(from), y2: frame.toY(to) }),
      svg("circle", { class: "dot", cx: x, cy: frame.toY(kept / n), r: 3.5 }),
    );
  }
  hover(frame, (value) => {
    const near = rateBins(source).reduce(
      (best, bin) => (!best || Math.abs(bin[0] - value) < Math.abs(best[0] - value) ? bin : best),
      null,
    );
    if (!near) return ["no documents"];
    const [score, kept, n] = near;
    const [from, to] = wilson(kept, n);
    return [
      `score about ${score.toFixed(2)}`,
      `kept ${number(kept)} of ${number(n)}: ${percent(kept, n)}`,
      `95 % interval ${percent(from, 1)} to ${percent(to, 1)}`,
      `law: ${percent(law(rule, score), 1)}`,
    ];
  });
  legend("rates-legend", [
    ["round dot", "measured, with 95 % Wilson interval"],
    ["dash law", source.filtered ? `law of this run, ${describe(own)}` : "taken whole"],
    ...(source.filtered && moved() ? [["dash chosen", describe(setting())]] : []),
  ]);
  return frame.root;
});

function update() {
  drawControl();
  drawYield();
  curve();
  histogram();
  rates();
}
