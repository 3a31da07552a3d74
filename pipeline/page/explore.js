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
  clearest: true,
  sort: { column: 2, down: true }, // of the table of sources: best first
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
    el("span", { class: "faint" }, source.filtered ? " filtered" : " pass-through"),
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
  document.getElementById("source").value = state.source;
  range.setAttribute("aria-valuetext", describe(setting()));
  value.min = stops[0] ?? 0;
  value.max = stops.at(-1) ?? 1;
  value.step = state.rule === "pareto" ? 0.1 : 0.01;
  value.value = setting().parameter;
  put("symbol", SYMBOLS[state.rule] ?? "");
  put("own", "Reset");
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
  picker.addEventListener("change", () => choose(Number(picker.value)));
}

function choose(source) {
  state.source = source;
  drawSource();
  update();
}

// Two lines of a cell: a number, and what it is to be held against.
const over = (text, below) => el("span", {}, text, el("span", { class: "interval" }, below));

// A source's scores in half as many bins, as bars of a height of its own: all, kept by this run, and
// expected at the chosen setting. Square roots, so that rare scores are seen too.
function spread(source) {
  const pairs = (counts) =>
    counts.filter((_, i) => i % 2 === 0).map((n, i) => n + counts[2 * i + 1]);
  const all = pairs(source.histogram);
  const step = 100 / all.length;
  const top = Math.max(1, ...all);
  const y = (n) => 40 - 38 * Math.sqrt(n / top);
  const bars = (counts, kind) =>
    svg("path", {
      class: kind,
      d: counts
        .map((n, i) => (n ? `M${i * step} 40V${y(n)}h${0.86 * step}V40Z` : ""))
        .join(""),
    });
  const root = svg(
    "svg",
    { class: "spread", viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img" },
    svg("title", {}, `Quality scores of ${source.name}, 0 to 1`),
    bars(all, "dropped"),
    bars(pairs(source.kept_histogram), "kept"),
  );
  if (source.filtered && moved()) {
    const expected = all.map((n, i) => n * law(setting(), (i + 0.5) / all.length));
    const points = expected.flatMap((n, i) => [
      [i * step, y(n)],
      [(i + 1) * step, y(n)],
    ]);
    root.append(path(points, { class: "chosen" }));
  }
  if (source.mean_score) {
    const x = 100 * source.mean_score.value;
    root.append(svg("line", { class: "mean", x1: x, x2: x, y1: 0, y2: 40 }));
  }
  return root;
}

// Every source: its scores, and what it keeps at the chosen setting.
function drawSources() {
  const score = ({ mean_score: of }) =>
    of === null ? "–" : over(of.value.toFixed(2), `${of.low.toFixed(2)} to ${of.high.toFixed(2)}`);
  const row = (name, scores, average, read, kept, before) => {
    const [low, high] = read[0] ? wilson(kept[0], read[0]) : [0, 0];
    const meter = el("span", { class: "meter" }, el("i", {}));
    meter.firstChild.style.width = `${read[0] ? (100 * kept[0]) / read[0] : 0}%`;
    const change = kept[0] - before[0];
    const [kind, sign] = change > 0 ? ["more", "+"] : ["less", "−"];
    const against = change
      ? el("span", { class: kind }, `, ${sign}${number(Math.abs(change))}`)
      : null;
    return [
      name,
      scores,
      average,
      el(
        "span",
        {},
        meter,
        el("span", { class: "portion" }, percent(kept[0], read[0])),
        el("span", { class: "interval" }, read[0] ? `${percent(low, 1).replace(" %", "")} to ${percent(high, 1)}` : ""),
      ),
      {
        ...documents(kept[0], "documents"),
        text: over(number(kept[0]), [`of ${number(read[0])}`, against]),
      },
      { ...bytes(kept[1], "bytes"), text: over(size(kept[1]), `of ${size(read[1])}`) },
      { ...documents(kept[2], "words"), text: over(number(kept[2]), `of ${number(read[2])}`) },
    ];
  };
  const all = (get) => add(data.sources.map(get));
  const read = (source) => outcome(source, "read");
  const kept = (source) => outcome(source, "kept");
  const scale = el(
    "span",
    { class: "scale" },
    ...["0", "quality score", "1"].map((text) => el("span", {}, text)),
  );
  const share = (source) => yieldOf(source)[0] / (read(source)[0] || 1);
  const keys = [
    (source) => source.name,
    null,
    (source) => source.mean_score?.value ?? -1,
    share,
    (source) => yieldOf(source)[0],
    (source) => yieldOf(source)[1],
    (source) => yieldOf(source)[2],
  ];
  const ranked = sorted(
    data.sources.map((_, i) => i),
    (i) => keys[state.sort.column](data.sources[i]),
    state.sort.down,
  );
  const names = ["Source", "", "Mean score", "Kept", "Documents", "Text", "Words"];
  const heads = sortHeads(names, state.sort, (sort) => ((state.sort = sort), drawSources()));
  heads[1] = scale;
  const drawn = table(
    heads,
    ranked.map((i) => {
      const source = data.sources[i];
      return row(mark(source), spread(source), score(source), read(source), yieldOf(source), kept(source));
    }),
    data.sources.length > 1 ? row("All", "", "", all(read), all(yieldOf), all(kept)) : null,
  );
  for (const line of drawn.rows)
    for (const [i, cell] of [...line.cells].entries())
      if (i > 1) {
        cell.classList.add("n");
        cell.dataset.label = names[i];
      }
  for (const [place, line] of [...drawn.tBodies[0].rows].entries()) {
    line.classList.toggle("chosen-row", ranked[place] === state.source);
    line.addEventListener("click", () => choose(ranked[place]));
  }
  const box = document.getElementById("sources");
  box.classList.toggle("tall", data.sources.length > 10);
  const place = box.scrollTop;
  box.replaceChildren(drawn);
  box.scrollTop = place;
  put("at", moved() ? `at ${describe(setting())}` : `this run, ${describe(own)}`);
  legend("sources-legend", [
    ["box dropped", "dropped"],
    ["box kept", "kept by this run"],
    ...(moved() ? [["dash chosen", `expected at ${describe(setting())}`]] : []),
    ["upright mean", "mean"],
    ["", "bar heights: square root of the documents, by source"],
  ]);
  const { name, parameter } = setting();
  const flag = {
    pareto: ` --alpha ${parameter}`,
    threshold: ` --threshold ${parameter}`,
    random: ` --rate ${parameter}`,
    all: "",
  }[name];
  put(
    "command",
    data.write !== "all"
      ? "This run wrote the kept documents alone; a run with --write all can be decided again."
      : moved()
        ? [
            "Decide so: ",
            el(
              "code",
              {},
              `winnow decide --scored THIS_FOLDER --output NEW_FOLDER --rule ${name}${flag}`,
            ),
          ]
        : "Move the slider to see what another setting keeps: the counts are exact, by each document’s own draw.",
  );
}

const isLog = (id) => document.getElementById(`${id}-log`).checked;

// The y axis of a chart of shares.
function shareAxis(id, shares) {
  const format = (v) => `${Number((v * 100).toPrecision(1))} %`;
  if (!isLog(id)) return { top: 1.02, ticks: [0, 0.2, 0.4, 0.6, 0.8, 1], format };
  const least = Math.max(1e-6, Math.min(0.1, ...shares.filter((v) => v > 0)));
  const low = 10 ** Math.floor(Math.log10(least) + 1e-9);
  const marks = powers(low, 1).flatMap((v) => (low < 0.01 ? v : [v, 2 * v, 5 * v]));
  return { log: true, low, top: 1.1, ticks: marks.filter((v) => v <= 1), format };
}

const curve = chart("curve", (width) => {
  const rule = state.rule in data.stops ? state.rule : "pareto";
  const stops = data.stops[rule];
  const top = stops.at(-1);
  const filtered = data.sources.filter((source) => source.filtered);
  const read = (source) => outcome(source, "read")[0] || 1;
  const frame = plot(
    width,
    240,
    { top, ticks: ticks(top, Math.min(10, width / 60)), label: SYMBOLS[rule] },
    shareAxis(
      "curve",
      filtered.flatMap((source) => source.curves[rule][0].map((n) => n / read(source))),
    ),
    `Kept share of each filtered source against ${SYMBOLS[rule]}`,
  );
  // Beyond six colours the chosen source stands out of the others.
  const many = filtered.length > 6;
  const chosen = (source) => source === data.sources[state.source];
  const kind = (source, i) => (!many ? `series${i}` : chosen(source) ? "series0" : "other");
  for (const [i, source] of [...filtered.entries()].sort(([, a], [, b]) => chosen(a) - chosen(b))) {
    const points = source.curves[rule][0].map((n, k) => [
      frame.toX(stops[k]),
      frame.toY(n / read(source)),
    ]);
    frame.root.append(path(points, { class: `line ${kind(source, i)}` }));
  }
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
        .filter((source) => !many || chosen(source))
        .map(
          (source) =>
            `${source.name}: ${number(source.curves[rule][0][k])} documents, ${percent(source.curves[rule][0][k], outcome(source, "read")[0])}`,
        ),
    ];
  });
  legend("curve-legend", [
    ...[...filtered.entries()]
      .filter(([, source]) => !many || chosen(source))
      .map(([i, source]) => [`dash ${kind(source, i)}`, source.name]),
    ...(many ? [["dash other", "the other filtered sources"]] : []),
    ...(own.name === rule ? [["upright run", "this run"]] : []),
    ...(moved() && state.rule === rule ? [["upright chosen", "chosen setting"]] : []),
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
    shareAxis("rates", [
      law(source.filtered ? own : { name: "all" }, 0),
      ...rateBins(source).map(([, kept, n]) => kept / n),
    ]),
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
      `by the rule: ${percent(law(rule, score), 1)}`,
    ];
  });
  legend("rates-legend", [
    ["round dot", "measured, with 95 % interval"],
    ["dash law", source.filtered ? `the rule, ${describe(own)}` : "pass-through"],
    ...(source.filtered && moved() ? [["dash chosen", describe(setting())]] : []),
  ]);
  return frame.root;
});

function update() {
  drawControl();
  drawSources();
  tellExamples();
  curve();
  histogram();
  rates();
}
