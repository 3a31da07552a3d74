// A swarm of mixtures: the one that is proposed, every run, and how well the regression predicts.

function scatter(width, { points, uprights = [], diagonal, x, y, label }) {
  const frame = plot(width, 240, x, y, label);
  const line = (a, b, attributes) =>
    frame.root.append(
      path([a, b].map(([across, up]) => [frame.toX(across), frame.toY(up)]), {
        class: "nought",
        ...attributes,
      }),
    );
  if (diagonal) line(...diagonal.map((value) => [value, value]));
  for (const { at, dashed } of uprights)
    line([at, y.low], [at, y.top], dashed ? { "stroke-dasharray": "4 3" } : {});
  for (const { at, title } of points)
    frame.root.append(
      svg(
        "circle",
        { class: "run-dot", cx: frame.toX(at[0]), cy: frame.toY(at[1]), r: 4 },
        svg("title", {}, title),
      ),
    );
  return frame.root;
}

function drawMixture() {
  if (isEmpty("mixture")) return;
  const [rows, runs] = [rowsOf("mixture"), rowsOf("mixture_runs")];
  const share = (value) => `${Math.round(100 * value)} %`;
  const bar = (value) => meter(value, 1, share(value));
  put("mixture-said", data.mixture);
  drawTable("mixture", rows, [
    ["Component", (row) => row.component],
    ["#Natural", (row) => bar(row.natural)],
    ["#Proposed", (row) => bar(row.proposed)],
    ["#May be best", (row) => `${share(row.low)} to ${share(row.high)}`],
    ["#At most", (row) => share(row.most)],
    ["#Ten points more", (row) => digits(row.effect, true)],
    [`#${percentage} interval`, (row) => between({ low: row.effect_low, high: row.effect_high })],
  ]);
  const words = (row) =>
    rows.map(({ component }) => `${share(row[`weight of ${component}`])} ${component}`).join(", ");
  const y = around(runs.map((row) => row.value), { format: digits });
  const charts = rows.map((_, i) => el("div", { id: `mixture-of-${i}`, class: "chart" }));
  put("mixture_runs", charts);
  rows.forEach(({ component, natural, proposed }, i) => {
    const weights = runs.map((row) => row[`weight of ${component}`]);
    const x = around([...weights, natural, proposed, 0], { limits: [0, 1] });
    chart(`mixture-of-${i}`, (width) =>
      scatter(width, {
        points: runs.map((row, k) => ({
          at: [weights[k], row.value],
          title: `${row.arm}, ${digits(row.value)}: ${words(row)}`,
        })),
        uprights: [{ at: natural, dashed: true }, { at: proposed }],
        x: { ...x, label: `weight of ${component}`, format: share },
        y,
        label: `Primary endpoint by weight of ${component}`,
      }),
    );
  });
  put(
    "mixture-runs-hint",
    `Each dot is a run: ${declared.unit} on ${primaryText} (${better}) by the weight of a component. Vertical lines: the proposed weight, and (dashed) the natural one.`,
  );
  const both = around(runs.flatMap((row) => [row.value, row.left_out]), { format: digits });
  chart("mixture-left-out", (width) =>
    scatter(Math.min(width, 460), {
      points: runs.map((row) => ({
        at: [row.left_out, row.value],
        title: `${row.arm}: ${digits(row.value)}, predicted ${digits(row.left_out)}`,
      })),
      diagonal: [both.low, both.top],
      x: { ...both, label: "predicted by all other runs" },
      y: both,
      label: "Runs as observed and as predicted by the others",
    }),
  );
  drawTable("mixture_coefficients", rowsOf("mixture_coefficients"), [
    ["Term", (row) => row.term],
    ["#Coefficient", (row) => digits(row.value)],
    [`#${percentage} interval`, (row) => between(row, false)],
  ]);
}

drawMixture();
