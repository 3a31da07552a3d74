// The page of a study, section by section.

const AXES = { tokens: "tokens", unique_tokens: "unique tokens", flops: "total FLOPs" };
const percentage = `${Math.round(declared.coverage * 100)} %`;
const better = declared.gain > 0 ? "more is better" : "less is better";
const primaryName = declared.endpoint.split("/").slice(1).join(" ");
const state = {
  endpoint: declared.heldout.includes(primaryName) ? primaryName : declared.heldout[0],
  variant: declared.main,
  axis: "tokens",
  router: "entropy",
};

function drawHead() {
  put("study", `ablation study ${data.study}`);
  put("headline", data.headline);
  put("sentence", data.sentence);
  put(
    "notes",
    data.notes.map((note) => {
      const [head, ...rest] = note.split("; ");
      const long = rest.length && note.length > 150;
      return el("li", {}, long ? el("details", {}, el("summary", {}, `${head} …`), rest.join("; ")) : note);
    }),
  );
  const { primary, jobs } = data;
  const tile = (title, value, detail) =>
    el("div", { class: "tile" }, el("span", {}, title), el("strong", {}, value), el("span", { class: "interval" }, detail));
  const energy = rowsOf("costs").reduce((sum, row) => sum + (row.kwh_sum ?? 0), 0);
  const bases = unique(rowsOf("costs").map((row) => row.kwh_basis)).filter(Boolean);
  put(
    "tiles",
    primary
      ? [
          tile("Difference", digits(primary.value, true), `${primary.unit}, ${percentage} interval ${between(primary)}`),
          tile(
            "In parts of the baseline",
            primary.relative === null ? "–" : `${digits(100 * primary.relative, true)} %`,
            `of ${digits(primary.baseline_value)} ${primary.unit}; ${better}`,
          ),
          tile(
            "Could have been found",
            digits(data.detectable),
            `${primary.unit}, with probability ${Math.round(declared.power * 100)} %; of interest: ${digits(declared.smallest_difference)}`,
          ),
        ]
      : [],
    tile("Jobs", `${number(jobs.complete)} of ${number(jobs.declared)}`, `complete, over ${declared.seeds.length} seeds`),
    tile("Electricity", `${digits(energy)} kWh`, bases.join(" and ") || "nothing ran"),
  );
}

function estimateRow(name, arm, of, extra = {}) {
  const title = `${name}: ${digits(of.value, true)} (${between(of)})`;
  return { name, marks: [{ arm, ...of, title, ...extra }], text: `${digits(of.value, true)} (${between(of)})` };
}

// The edges of an axis of differences hold 0 and what matters.
const differenceAxis = (values, smallest = 0) => around([...values, 0, smallest, -smallest]);

function drawPrimary() {
  const { primary } = data;
  put("primary-title", `${declared.treatment} minus ${declared.baseline} on ${declared.endpoint}`);
  if (primary) {
    put(
      "primary-hint",
      `Paired by seed, in ${primary.unit} (${better}). Shaded: less than the smallest difference of interest, ${digits(declared.smallest_difference)}. Error of seeds ${digits(primary.seed_error)}, of held-out items ${digits(primary.item_error)}, together ${digits(primary.error)} with ${figure(Number((primary.df ?? 0).toFixed(1)))} degrees of freedom; p = ${primary.p === null ? "–" : Number(primary.p.toPrecision(2))}.`,
    );
  }
  if (!saysWhy("seeds")) {
    const rows = [
      estimateRow("seeds and items together", null, primary),
      ...(primary.seed_low === null
        ? []
        : [estimateRow("seeds alone", null, { value: primary.value, low: primary.seed_low, high: primary.seed_high })]),
      ...rowsOf("seeds").map((row) => ({
        name: `seed ${row.seed}`,
        marks: [{ arm: declared.treatment, value: row.difference, title: `${digits(row.treatment)} against ${digits(row.baseline)}` }],
        text: `${digits(row.difference, true)} (${digits(row.treatment)} − ${digits(row.baseline)})`,
      })),
    ];
    const values = rows.flatMap(({ marks: [of] }) => [of.value, of.low, of.high]);
    const axis = differenceAxis(values, declared.smallest_difference);
    chart("seeds", (width) =>
      forest(width, { rows, axis, zero: true, matters: declared.smallest_difference, label: `difference in ${declared.unit} (${better})` }),
    );
  }
  if (!saysWhy("secondary"))
    put(
      "secondary",
      table(
        ["Arm", "Endpoint", "#Difference", "#Interval of the family", "#p", "#p, Holm", "Outcome"],
        rowsOf("secondary").map((row) => [
          `${row.arm} − ${row.against}`,
          row.endpoint,
          row.difference === null ? "–" : `${digits(row.difference, true)} ${row.unit}`,
          between({ low: row.family_low, high: row.family_high }),
          row.p === null || row.p === undefined ? "–" : Number(row.p.toPrecision(2)),
          row.p_holm === null || row.p_holm === undefined ? "–" : Number(row.p_holm.toPrecision(2)),
          row.outcome,
        ]),
      ),
    );
}

function drawHeldout() {
  put("heldout-title", `Difference to ${declared.baseline}, bits per byte (less is better)`);
  put(
    "heldout-hint",
    `Groups and the sources in them, with ${percentage} intervals over seeds and documents. These are not tested: with many rows some stand out by chance. A filter can help on curated text and hurt on raw web text.`,
  );
  if (saysWhy("heldout")) return;
  const rows = rowsOf("heldout").map((row) => ({ ...row, name: row.endpoint.replace(/^heldout\//, "") }));
  const arms = declared.arms.filter((arm) => arm !== declared.baseline);
  const row = (name, indent) => {
    const here = rows.filter((each) => each.name === name && each.difference !== null);
    const own = rows.find((each) => each.name === name && each.arm === declared.baseline);
    const marks = arms
      .map((arm) => here.find((each) => each.arm === arm))
      .filter(Boolean)
      .map((each) => ({
        arm: each.arm,
        value: each.difference,
        low: each.low,
        high: each.high,
        title: `${each.arm}: ${digits(each.difference, true)} (${between(each)})`,
      }));
    return { name: indent + name, marks, text: own ? `${declared.baseline}: ${digits(own.value)}` : "" };
  };
  const grouped = Object.entries(declared.groups).flatMap(([group, sources]) => [
    row(group, ""),
    ...sources.filter((source) => source !== group).map((source) => row(source, "\u00a0\u00a0\u00a0")),
  ]);
  const inGroups = new Set(Object.values(declared.groups).flat());
  const rest = unique(rows.map(({ name }) => name)).filter(
    (name) => !(name in declared.groups) && !inGroups.has(name),
  );
  const all = [...grouped, ...rest.map((name) => row(name, ""))].filter(({ marks }) => marks.length);
  const axis = differenceAxis(all.flatMap(({ marks }) => marks.flatMap((of) => [of.value, of.low, of.high])));
  const box = document.getElementById("heldout");
  box.before(el("div", { id: "heldout-legend", class: "legend" }));
  armLegend("heldout-legend", arms);
  chart("heldout", (width) =>
    forest(width, { rows: all, axis, zero: true, label: "difference in bits per byte" }),
  );
}

const chosen = (row) => row.variant === state.variant && (row.endpoint ?? state.endpoint) === state.endpoint;

// Lines of single runs and of means for a chart of rows with arm and seed.
function runLines(rows, x, y) {
  const groups = new Map();
  for (const row of rows) {
    const key = `${row.arm}\n${row.seed}`;
    if (!groups.has(key)) groups.set(key, { arm: row.arm, thin: true, points: [] });
    groups.get(key).points.push([row[x], row[y]]);
  }
  return [...groups.values()];
}

function meanLines(rows, x) {
  return declared.arms
    .map((arm) => rows.filter((row) => row.arm === arm))
    .filter((own) => own.length)
    .map((own) => ({
      arm: own[0].arm,
      points: own.map((row) => [row[x], row.value]),
      band: own.filter((row) => row.low !== null).map((row) => [row[x], row.low, row.high]),
      of: own,
    }));
}

function nothingHere() {
  return el("p", { class: "empty" }, "No complete job of this variant has it.");
}

function lineChart(lines, x, y, label, tell, level = null) {
  return (width) => {
    const found = lines();
    if (!found.length) return nothingHere();
    const points = found.flatMap((line) => line.points);
    const bands = found.flatMap((line) => line.band ?? []);
    return linePlot(width, {
      lines: found,
      x: { ...around(points.map(([a]) => a), { n: Math.min(7, width / 70), format: amount, ...x() }), label: x().label },
      y: around([...points.map(([, b]) => b), ...bands.flatMap(([, low, high]) => [low, high]), ...(level === null ? [] : [level])], {
        format: (value) => figure(Number(value.toPrecision(5))),
        ...y,
      }),
      label,
      tell: (value) => tell(found, value),
      level,
    });
  };
}

function drawCurves() {
  const redraw = [];
  const again = () => redraw.forEach((draw) => draw());
  selection("pick-endpoint", declared.heldout, (name) => ((state.endpoint = name), again()));
  document.getElementById("pick-endpoint").value = Math.max(0, declared.heldout.indexOf(state.endpoint));
  selection("pick-variant", declared.variants, (name) => ((state.variant = name), again()), (name) => name || "main");
  document.getElementById("pick-variant").value = declared.variants.indexOf(state.variant);
  armLegend("arms-legend", declared.arms);
  const means = (signed) => (lines, value) => [
    ...lines
      .filter((line) => line.of)
      .map((line) => {
        const point = nearest(line.points, value);
        const row = line.of[line.points.indexOf(point)];
        return `${line.arm} at ${amount(point[0])}: ${digits(row.value, signed)} (${between(row, signed)})`;
      }),
  ];
  if (!saysWhy("curves")) {
    segments("pick-axis", Object.values(AXES), 0, (i) => ((state.axis = Object.keys(AXES)[i]), again()));
    const lines = () => [
      ...runLines(rowsOf("curves").filter(chosen), state.axis, "value"),
      ...meanLines(rowsOf("bands").filter(chosen), state.axis),
    ];
    const x = () => ({ label: AXES[state.axis] });
    redraw.push(chart("curves", lineChart(lines, x, {}, "Held-out bits per byte along the training", means(false))));
  }
  put("gaps-title", `Difference to ${declared.baseline} at equal tokens`);
  if (!saysWhy("gaps")) {
    const lines = () => meanLines(rowsOf("gaps").filter(chosen), "tokens");
    redraw.push(chart("gaps", lineChart(lines, () => ({ label: "tokens" }), {}, "Difference along the training", means(true), 0)));
  }
  if (!saysWhy("training_loss")) {
    const lines = () => runLines(rowsOf("training_loss").filter((row) => row.variant === state.variant), "tokens", "loss");
    redraw.push(
      chart(
        "training_loss",
        lineChart(lines, () => ({ label: "tokens" }), {}, "Training loss", (found, value) =>
          declared.arms
            .map((arm) => [arm, found.filter((line) => line.arm === arm).map((line) => nearest(line.points, value)[1])])
            .filter(([, values]) => values.length)
            .map(([arm, values]) => `${arm} at ${amount(value)}: ${range(values).map((v) => digits(v)).join(" to ")}`),
        ),
      ),
    );
  }
  put("efficiency-title", `Tokens an arm needs, in parts of those of ${declared.baseline}`);
  if (!saysWhy("efficiency")) {
    const lines = () => meanLines(rowsOf("efficiency").filter(chosen), "tokens");
    redraw.push(
      chart(
        "efficiency",
        lineChart(lines, () => ({ label: `tokens of ${declared.baseline}` }), {}, "Data efficiency", means(false), 1),
      ),
    );
  }
  drawMatched();
}

// A row for each budget, a column for each arm.
function drawMatched() {
  put("matched-title", `${declared.endpoint} at equal budgets, and the difference to ${declared.baseline}`);
  if (saysWhy("matched")) return;
  const rows = rowsOf("matched");
  const arms = declared.arms.filter((arm) => rows.some((row) => row.arm === arm));
  const cell = (row) => {
    if (row === undefined || row.value === null) return el("span", { class: "faint" }, row?.status ?? "–");
    const detail = row.difference === null ? "" : `${digits(row.difference, true)} (${between(row)})`;
    return el("span", {}, digits(row.value), el("span", { class: "interval" }, detail));
  };
  put(
    "matched",
    table(
      ["Equal", "#At", ...arms.map((arm) => `#${arm}`)],
      unique(rows.map((row) => `${row.matched}\n${row.at}`)).map((key) => {
        const here = rows.filter((row) => `${row.matched}\n${row.at}` === key);
        const at = [here[0].matched.replace("equal ", ""), amount(here[0].at)];
        return [...at, ...arms.map((arm) => cell(here.find((row) => row.arm === arm)))];
      }),
    ),
  );
}

function drawSizes() {
  put("sizes-title", `${declared.endpoint} by total compute`);
  const told = (lines, value) =>
    lines
      .filter((line) => line.dots || line.of)
      .map((line) => {
        const [x, y] = nearest(line.points, value);
        return `${line.name ?? line.arm} at ${amount(x)}: ${digits(y)}`;
      });
  if (!saysWhy("size_runs")) {
    const runs = rowsOf("size_runs");
    const laws = rowsOf("scaling");
    const lines = () =>
      declared.arms.flatMap((arm) => {
        const own = runs.filter((row) => row.arm === arm);
        const law = laws.filter((row) => row.arm === arm);
        const points = own.map((row) => [row.flops, row.value]).sort((a, b) => a[0] - b[0]);
        return [
          { arm, thin: true, dots: true, points },
          ...(law.length
            ? [{ arm, of: law, name: `law of ${arm}`, points: law.map((row) => [row.flops, row.value]), band: law.map((row) => [row.flops, row.low, row.high]) }]
            : []),
        ].filter((line) => line.points.length);
      });
    chart("size_runs", lineChart(lines, () => ({ log: true, label: "total FLOPs of a run" }), {}, "Primary endpoint by compute", told));
  }
  if (!saysWhy("iso_flop")) {
    const rows = rowsOf("iso_flop");
    const lines = () =>
      declared.arms.flatMap((arm) =>
        unique(rows.filter((row) => row.arm === arm).map((row) => row.flops)).map((flops) => {
          const own = rows.filter((row) => row.arm === arm && row.flops === flops);
          const points = own.map((row) => [row.parameters_active, row.value]).sort((a, b) => a[0] - b[0]);
          return { arm, name: `${arm}, ${amount(flops)} FLOPs`, thin: true, dots: true, points };
        }),
      );
    chart("iso_flop", lineChart(lines, () => ({ log: true, label: "active parameters; a line is one budget" }), {}, "Primary endpoint by size at equal compute", told));
    armLegend("iso_flop-legend", declared.arms);
  }
  put(
    "size-tables",
    [
      ["sizes", "The contrast at each size", ["model", "flops", "seeds", "difference", "low", "high", "p", "outcome"]],
      ["orders", "Does a smaller size order the arms as the largest does?", ["variant", "target", "arms", "decision_accuracy", "decision_low", "decision_high", "kendall_tau", "best_arm_found"]],
      ["scaling", "Scaling law per arm; a forecast goes one decade beyond what was run", ["arm", "flops", "kind", "value", "low", "high", "floor", "exponent"]],
    ]
      .filter(([name]) => !isEmpty(name))
      .map(([name, title, columns]) => {
        const rows = rowsOf(name).map((row) => Object.fromEntries(columns.map((key) => [key, row[key]])));
        return el("figure", {}, el("figcaption", {}, title, csvButton(name)), viewList(rows));
      }),
  );
}

drawHead();
drawPrimary();
drawHeldout();
drawCurves();
drawSizes();
