// What is drawn along the training, by size and at equal budgets.

const AXES = { tokens: "tokens", unique_tokens: "unique tokens", flops: "total FLOPs" };
const AXIS_NAMES = ["tokens", "unique", "FLOPs"];
const chosen = (row) =>
  row.variant === state.variant && (row.endpoint ?? state.endpoint) === state.endpoint;

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
      dots: own.length < 3,
      band: own.filter((row) => row.low !== null).map((row) => [row[x], row.low, row.high]),
      of: own,
    }));
}

function nothingHere() {
  return el("p", { class: "empty" }, "No complete job of this variant logged this.");
}

// `lines()` are drawn over `x()`. A band may reach beyond the chart: the lines set its height, and
// at most as much again is added for bands.
function lineChart(lines, x, label, tell, level = null) {
  return (width) => {
    const found = lines();
    if (!found.length) return nothingHere();
    const across = found.flatMap((line) => line.points.map(([a]) => a));
    const values = found.flatMap((line) => line.points.map(([, b]) => b));
    if (level !== null) values.push(level);
    const [low, top] = range(values);
    const limits = top > low ? [low - (top - low) / 2, top + (top - low) / 2] : undefined;
    const bands = found.flatMap((line) => (line.band ?? []).flatMap(([, ...edges]) => edges));
    return linePlot(width, {
      lines: found,
      x: { ...around(across, { n: Math.min(7, width / 70), format: amount, ...x() }), ...x() },
      y: around([...values, ...bands], {
        limits,
        format: (value) => figure(Number(value.toPrecision(5))),
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
  selection(
    "pick-endpoint",
    declared.heldout,
    (name) => ((state.endpoint = name), again()),
    heldoutLabel,
  );
  document.getElementById("pick-endpoint").value = Math.max(
    0,
    declared.heldout.indexOf(state.endpoint),
  );
  selection(
    "pick-variant",
    declared.variants,
    (name) => ((state.variant = name), again()),
    (name) => name || "main",
  );
  document.getElementById("pick-variant").value = declared.variants.indexOf(state.variant);
  armLegend("arms-legend", declared.arms);
  const means = (signed) => (lines, value) =>
    lines
      .filter((line) => line.of)
      .map((line) => {
        const point = nearest(line.points, value);
        const row = line.of[line.points.indexOf(point)];
        return `${line.arm} at ${amount(point[0])}: ${digits(row.value, signed)} (${between(row, signed)})`;
      });
  if (!isEmpty("curves")) {
    segments("pick-axis", AXIS_NAMES, 0, (i) => ((state.axis = Object.keys(AXES)[i]), again()));
    const lines = () => [
      ...runLines(rowsOf("curves").filter(chosen), state.axis, "value"),
      ...meanLines(rowsOf("bands").filter(chosen), state.axis),
    ];
    const x = () => ({ label: AXES[state.axis] });
    const label = "Held-out bits per byte during training";
    redraw.push(chart("curves", lineChart(lines, x, label, means(false))));
  }
  put("gaps-title", `Difference to ${declared.baseline} at equal tokens`);
  if (!isEmpty("gaps")) {
    const lines = () => meanLines(rowsOf("gaps").filter(chosen), "tokens");
    const x = () => ({ label: "tokens" });
    redraw.push(chart("gaps", lineChart(lines, x, "Difference during training", means(true), 0)));
  }
  if (!isEmpty("training_loss")) {
    const here = (name) => rowsOf(name).filter((row) => row.variant === state.variant);
    const lines = () => [
      ...runLines(here("training_loss"), "tokens", "loss"),
      ...meanLines(here("loss_bands"), "tokens"),
    ];
    const x = () => ({ label: "tokens" });
    redraw.push(chart("training_loss", lineChart(lines, x, "Training loss", means(false))));
  }
  put("efficiency-title", `Tokens needed, relative to ${declared.baseline}`);
  if (!isEmpty("efficiency")) {
    const lines = () => meanLines(rowsOf("efficiency").filter(chosen), "tokens");
    const x = () => ({ label: `tokens of ${declared.baseline}` });
    redraw.push(chart("efficiency", lineChart(lines, x, "Data efficiency", means(false), 1)));
  }
  drawMatched();
}

// A row for each budget, a column for each arm.
function drawMatched() {
  put("matched-title", `${primaryName} at equal budgets, and the difference to ${declared.baseline}`);
  if (isEmpty("matched")) return;
  const rows = rowsOf("matched");
  const arms = declared.arms.filter((arm) => rows.some((row) => row.arm === arm));
  const cell = (row) => {
    if (row === undefined || row.value === null)
      return el("span", { class: "faint" }, row?.status ?? "–");
    const detail =
      row.difference === null ? "" : `${digits(row.difference, true)} (${between(row)})`;
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

// Arms or variants that are points of an axis: a line for each variant or arm.
function drawSwept() {
  if (isEmpty("swept")) return;
  const rows = rowsOf("swept");
  const { axis } = rows[0];
  const ofArms = rows[0].points === "arms";
  const inkOf = (line) => (ofArms ? declared.arms[declared.variants.indexOf(line)] : line);
  const now = { endpoint: declared.endpoint, value: "value" };
  const endpoints = unique(rows.map((row) => row.endpoint));
  const kinds = { value: "Values", difference: `Minus ${declared.baseline}` };
  const places = unique(rows.map((row) => row.at));
  const log = Math.min(...places) > 0 && Math.max(...places) >= 8 * Math.min(...places);
  const edges = { value: ["low", "high"], difference: ["difference_low", "difference_high"] };
  const lines = () =>
    unique(rows.map((row) => row.line))
      .map((line) => {
        const own = rows.filter(
          (row) => row.line === line && row.endpoint === now.endpoint && row[now.value] !== null,
        );
        const [from, to] = edges[now.value];
        return {
          arm: inkOf(line),
          name: line,
          dots: true,
          points: own.map((row) => [row.at, row[now.value]]),
          band: own
            .filter((row) => row[from] !== null)
            .map((row) => [row.at, row[from], row[to]]),
          of: own,
        };
      })
      .filter((line) => line.points.length);
  const told = (found, value) =>
    found.map((line) => {
      const point = nearest(line.points, value);
      const row = line.of[line.points.indexOf(point)];
      const [from, to] = edges[now.value];
      const signed = now.value === "difference";
      const name = line.name ? `${line.name} at ` : "";
      return `${name}${axis} ${figure(point[0])}: ${digits(point[1], signed)} (${between({ low: row[from], high: row[to] }, signed)})`;
    });
  const draw = (width) =>
    lineChart(
      lines,
      () => ({ log, label: axis, format: figure, ticks: places }),
      `${labelOf(now.endpoint)} by ${axis}`,
      told,
      now.value === "difference" ? 0 : null,
    )(width);
  const title = () =>
    put("swept-title", `${labelOf(now.endpoint)} by ${axis}`);
  const redraw = chart("swept", draw);
  const again = () => (title(), redraw());
  selection("pick-swept", endpoints, (name) => ((now.endpoint = name), again()), labelOf);
  document.getElementById("pick-swept").value = endpoints.indexOf(now.endpoint);
  segments("pick-swept-what", Object.values(kinds), 0, (i) => {
    now.value = Object.keys(kinds)[i];
    again();
  });
  if (!ofArms) armLegend("swept-legend", declared.arms);
  title();
  put("swept-hint", "Means over seeds, with pointwise intervals over seeds.");
}

drawSwept();
drawCurves();
