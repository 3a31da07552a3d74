// Charts of scores and keep rates, at the setting that explore.js holds.

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
  const now = setting(unitNow());
  const own = ownOf(unitNow());
  const rule = now?.name in data.stops ? now.name : "pareto";
  const stops = stopsOf(unitNow(), rule);
  const top = stops.at(-1);
  const filtered = units.filter((unit) => unit.filtered && ownOf(unit));
  const read = (source) => outcome(source, "read")[0] || 1;
  const frame = plot(
    width,
    240,
    { top, ticks: ticks(top, Math.min(10, width / 60)), label: SYMBOLS[rule] },
    shareAxis(
      "curve",
      filtered.flatMap((source) => source.curves[rule][0].map((n) => n / read(source))),
    ),
    `Kept share of each filtered ${grouped ? "group" : "source"} against ${SYMBOLS[rule]}`,
  );
  // With more than six lines, only the chosen source has a colour.
  const many = filtered.length > 6;
  const chosen = (source) => source === unitNow();
  const kind = (source, i) => (!many ? `series${i}` : chosen(source) ? "series0" : "other");
  for (const [i, source] of [...filtered.entries()].sort(([, a], [, b]) => chosen(a) - chosen(b))) {
    const points = source.curves[rule][0].map((n, k) => [
      frame.toX(stopsOf(source, rule)[k]),
      frame.toY(n / read(source)),
    ]);
    frame.root.append(path(points, { class: `line ${kind(source, i)}` }));
  }
  const line = (x, kind) =>
    frame.root.append(svg("line", { class: kind, x1: x, x2: x, y1: frame.top, y2: frame.bottom }));
  if (own?.name === rule) line(frame.toX(own.parameter), "run");
  if (moved(unitNow()) && now.name === rule) line(frame.toX(now.parameter), "chosen");
  const nearest = (stops, value) =>
    stops.reduce(
      (best, stop, i) => (Math.abs(stop - value) < Math.abs(stops[best] - value) ? i : best),
      0,
    );
  hover(frame, (value) => {
    const k = nearest(stops, value);
    return [
      describe({ name: rule, parameter: stops[k] }),
      ...filtered
        .filter((source) => !many || chosen(source))
        .map((source) => {
          const n = source.curves[rule][0][nearest(stopsOf(source, rule), stops[k])];
          return `${fullName(source)}: ${number(n)} documents, ${percent(n, outcome(source, "read")[0])}`;
        }),
    ];
  });
  legend("curve-legend", [
    ...[...filtered.entries()]
      .filter(([, source]) => !many || chosen(source))
      .map(([i, source]) => [`dash ${kind(source, i)}`, fullName(source)]),
    ...(many ? [["dash other", `the other filtered ${grouped ? "groups" : "sources"}`]] : []),
    ...(own?.name === rule ? [["upright run", "this run"]] : []),
    ...(moved(unitNow()) && now.name === rule ? [["upright chosen", "chosen setting"]] : []),
  ]);
  return frame.root;
});

const histogram = chart("histogram", (width) => {
  const source = unitNow();
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
  if (source.filtered && moved(source)) {
    const points = counts.flatMap((n, i) =>
      [i, i + 1].map((edge) => [
        frame.toX(edge / bins),
        frame.toY(n * law(setting(source), (i + 0.5) / bins)),
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
    ...(source.filtered && moved(source)
      ? [["dash chosen", `expected at ${describe(setting(source))}`]]
      : []),
  ]);
  return frame.root;
});

// Keep rates in 20 bins: [mean score, kept, documents] of each that is not empty.
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
  const source = unitNow();
  const rule = source.filtered ? ownOf(source) : { name: "all" };
  const frame = plot(
    width,
    260,
    { top: 1, ticks: ticks(1, 5), label: "quality score" },
    shareAxis("rates", [
      rule ? law(rule, 0) : 0,
      ...rateBins(source).map(([, kept, n]) => kept / n),
    ]),
    `Keep rate of ${source.name} by quality score`,
  );
  const points = (of) =>
    Array.from({ length: 401 }, (_, i) => [frame.toX(i / 400), frame.toY(law(of, i / 400))]);
  const changed = source.filtered && moved(source);
  if (rule) frame.root.append(path(points(rule), { class: "line law" }));
  if (changed) frame.root.append(path(points(setting(source)), { class: "chosen" }));
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
      ...(rule ? [`by the rule: ${percent(law(rule, score), 1)}`] : []),
    ];
  });
  legend("rates-legend", [
    ["round dot", "measured, with 95 % interval"],
    ...(rule ? [["dash law", source.filtered ? `the rule, ${describe(rule)}` : "pass-through"]] : []),
    ...(changed ? [["dash chosen", describe(setting(source))]] : []),
  ]);
  return frame.root;
});

// Two classifiers' scores of the sampled documents of a source.
const scatter = chart("scatter", (width) => {
  const { names, sources } = data.scatter;
  const [across, up] = ["across", "up"].map((id) => Number(document.getElementById(id).value));
  const found = sources[sourceNow().name];
  const side = Math.min(width, 520);
  const axis = { top: 1, ticks: ticks(1, 5) };
  const frame = plot(
    side,
    side - 30,
    { ...axis, label: names[across] },
    { ...axis, format: (v) => figure(Number(v.toFixed(6))) },
    `Scores of ${sourceNow().name} by ${names[across]} and ${names[up]}`,
  );
  const kept = found ? found.kept : [];
  // Dropped ones first, so that they hide no kept ones.
  for (const wanted of [false, true])
    kept.forEach((is, i) => {
      const [cx, cy] = [frame.toX(found.scores[across][i]), frame.toY(found.scores[up][i])];
      const kind = is ? "point kept" : "point dropped";
      if (is === wanted) frame.root.append(svg("circle", { class: kind, cx, cy, r: 3 }));
    });
  legend("scatter-legend", [
    ["round kept", "kept by this run"],
    ["round dropped", "dropped"],
    ["", found ? `${number(kept.length)} documents; up: ${names[up]}` : "no sample of this source"],
  ]);
  return frame.root;
});

function listenToScatter() {
  if (!data.scatter) return;
  document.getElementById("compared").hidden = false;
  for (const [i, id] of ["across", "up"].entries()) {
    const picker = document.getElementById(id);
    picker.append(...data.scatter.names.map((name, k) => el("option", { value: k }, name)));
    picker.value = Math.min(i, data.scatter.names.length - 1);
    picker.addEventListener("change", scatter);
  }
}
