// What is drawn of several sizes: the contrast at each, decisions, metrics, compute and laws.

const kept = (row, name) =>
  row[`${name}_of`] === null ? "–" : `${row[`${name}_right`]} of ${row[`${name}_of`]}`;

const shares = (low, high) => (low === high ? percent(low, 1) : `${percent(low, 1)} to ${percent(high, 1)}`);

// The primary contrast, the smallest size first.
function drawContrasts() {
  if (isEmpty("sizes")) return;
  const rows = rowsOf("sizes");
  put("sizes-title", `${declared.treatment} minus ${declared.baseline} on ${primaryText}`);
  const values = rows.flatMap((row) => [row.difference, row.low, row.high]);
  chart("sizes", (width) =>
    forest(width, {
      rows: rows.map((row) => ({
        ...estimateRow(row.variant, declared.treatment, { ...row, value: row.difference }),
        text: `${digits(row.difference, true)} (${between(row)}), ${row.outcome}`,
      })),
      axis: differenceAxis(values, declared.smallest_difference),
      zero: true,
      matters: declared.smallest_difference,
      label: `difference in ${declared.unit} (${better})`,
    }),
  );
  put("sizes-hint", `${data.signs.sentence} ${percentage} intervals, as for the verdict.`);
}

function drawDecisions() {
  if (isEmpty("orders")) return;
  put(
    "orders",
    table(
      ["Sizes", "#Pairs that keep their order", "Best arm"],
      rowsOf("orders").map((row) => [
        el(
          "span",
          {},
          row.best_arm_found === null ? "each to the next" : `${row.variant} to ${row.target}`,
          row.arms < declared.arms.length
            ? el("span", { class: "interval" }, `${row.arms} of ${declared.arms.length} arms`)
            : "",
        ),
        el(
          "span",
          {},
          kept(row, "decision"),
          el("span", { class: "interval" }, shares(row.decision_low, row.decision_high)),
        ),
        row.best_arm_found === null ? "–" : row.best_arm_found ? "the same" : "another",
      ]),
    ),
  );
}

// A row for each metric, its ratio at each size; the best at the smallest size first.
function drawProxies() {
  if (isEmpty("proxies")) return;
  const rows = rowsOf("proxies");
  const sizes = unique(rows.map((row) => row.variant));
  const [smallest] = sizes;
  const several = sizes.length > 1;
  const ratio = (row) =>
    row === undefined
      ? "–"
      : el("span", { class: row.ratio > row.by_chance ? "stands-out" : "faint" }, digits(row.ratio));
  const about = rows.filter((row) => row.variant === smallest);
  put(
    "proxies",
    table(
      [
        "Measured on",
        ...sizes.map((size) => (several ? `#${size}` : "#Ratio")),
        "#Noise",
        ...(several ? ["#Order kept", "#As on the primary"] : ["#As on the primary"]),
      ],
      about.map((row) => [
        el(
          "span",
          {},
          data.labels[row.endpoint],
          el("span", { class: "interval" }, row.kind),
        ),
        ...sizes.map((size) =>
          ratio(rows.find((each) => each.variant === size && each.endpoint === row.endpoint)),
        ),
        percent(row.noise, 1),
        ...(several ? [kept(row, "own"), kept(row, "primary")] : [kept(row, "primary")]),
      ]),
    ),
  );
  const at = several ? ` at ${smallest}` : "";
  put(
    "proxies-hint",
    `${several ? "By size, the" : "The"} ratio of the spread between arms to the noise of a run: the higher, the fewer runs are needed to tell arms apart. Arms with equal text exceed ${digits(about[0].by_chance)}${at} in 1 of ${Math.round(1 / (1 - declared.coverage))} cases; lower ratios are grey. Noise: standard deviation of a run${at}, as a share of the score. `,
    several
      ? `Order kept: pairs of arms whose winner at ${smallest} also wins at the largest size. As on the primary: whose winner wins there on ${primaryText}.`
      : `As on the primary: pairs of arms whose winner also wins on ${primaryText}.`,
  );
}

function drawCompute() {
  put("compute-title", `${primaryName} by total compute`);
  const told = (lines, value) =>
    lines
      .filter((line) => line.dots || line.of)
      .map((line) => {
        const [x, y] = nearest(line.points, value);
        return `${line.name ?? line.arm} at ${amount(x)}: ${digits(y)}`;
      });
  if (!isEmpty("size_runs")) {
    const runs = rowsOf("size_runs");
    const laws = rowsOf("scaling");
    const lines = () =>
      declared.arms.flatMap((arm) => {
        const own = runs.filter((row) => row.arm === arm);
        const law = laws.filter((row) => row.arm === arm);
        const points = own.map((row) => [row.flops, row.value]).sort((a, b) => a[0] - b[0]);
        const fitted = {
          ...{ arm, of: law, name: `law of ${arm}` },
          points: law.map((row) => [row.flops, row.value]),
          band: law.map((row) => [row.flops, row.low, row.high]),
        };
        return [{ arm, thin: true, dots: true, points }, fitted].filter((line) => line.points.length);
      });
    const x = () => ({ log: true, label: "total FLOPs of a run" });
    chart("size_runs", lineChart(lines, x, "Primary endpoint by compute", told));
  }
  if (!isEmpty("iso_flop")) {
    const rows = rowsOf("iso_flop");
    const lines = () =>
      declared.arms.flatMap((arm) =>
        unique(rows.filter((row) => row.arm === arm).map((row) => row.flops)).map((flops) => {
          const own = rows.filter((row) => row.arm === arm && row.flops === flops);
          const points = own
            .map((row) => [row.parameters_active, row.value])
            .sort((a, b) => a[0] - b[0]);
          return { arm, name: `${arm}, ${amount(flops)} FLOPs`, thin: true, dots: true, points };
        }),
      );
    const x = () => ({ log: true, label: "active parameters; a line is one budget" });
    chart("iso_flop", lineChart(lines, x, "Primary endpoint by size at equal compute", told));
    armLegend("iso_flop-legend", declared.arms);
  }
}

function drawLaws() {
  if (isEmpty("scaling")) return;
  drawTable("scaling", rowsOf("scaling"), [
    ["Arm", (row) => row.arm],
    ["#FLOPs", (row) => amount(row.flops)],
    ["", (row) => row.kind],
    ["#Value", (row) => digits(row.value)],
    [`#${percentage} interval`, (row) => between(row, false)],
    ["#Floor", (row) => digits(row.floor)],
    ["#Exponent", (row) => digits(row.exponent)],
  ]);
}

drawContrasts();
drawDecisions();
drawProxies();
drawCompute();
drawLaws();
