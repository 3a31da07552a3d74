// A comparison of logged samples: the verdict, tests by task, scores, and what was not compared.

const { primary } = data;
const coverage = `${Math.round((1 - primary.alpha) * 100)} %`;
const direction = primary.gain > 0 ? "more is better" : "less is better";
const points = "points";

const several = (count, what) => `${number(count)} ${what}${count > 1 ? "s" : ""}`;

function drawHead() {
  put("study", "comparison of lm-eval samples");
  put("headline", data.headline);
  put("reach", data.sentence);
  put("notes", data.notes.map((text) => el("li", {}, text)));
  put(
    "tiles",
    tile(
      "Difference",
      digits(primary.value, true),
      `${primary.unit}, ${direction}; ${coverage} interval ${between(primary)}; p = ${chanceOf(primary.p)}`,
    ),
    tile(
      "Relative difference",
      primary.relative === null ? "–" : `${digits(100 * primary.relative, true)} %`,
      `of ${digits(primary.baseline_value)} ${primary.unit} (${primary.baseline})`,
    ),
    tile(
      "Smallest difference that could be seen",
      digits(data.detectable),
      `with ${Math.round(primary.power * 100)} % power; smallest of interest: ${digits(primary.smallest_difference)}`,
    ),
    tile(
      "Paired",
      `${number(data.paired.items)} items`,
      `of ${several(data.paired.tasks, "task")}, in ${several(data.runs, "run")} of each model` +
        (primary.tasks < data.paired.tasks
          ? `; the verdict is on ${several(primary.items, "item")} of ${several(primary.tasks, "task")}`
          : ""),
    ),
  );
}

// Differences of every task on one axis, where they share a unit.
function drawTests() {
  const { treatment, baseline, unit, on } = primary;
  const first = { arm: treatment, label: on, difference: primary.value, unit };
  const rows = [
    { ...first, family_low: primary.low, family_high: primary.high },
    ...rowsOf("tests"),
  ];
  const arms = unique(rows.map((row) => row.arm));
  const now = { arm: treatment };
  put("tasks-title", `${treatment} minus ${baseline}`);
  const draw = chart("forest", (width) => {
    const shown = rows.filter((row) => row.arm === now.arm && row.unit === unit);
    const axis = around([
      ...shown.flatMap((row) => [row.difference, row.family_low, row.family_high]),
      0,
      primary.smallest_difference,
      -primary.smallest_difference,
    ]);
    return forest(width, {
      rows: shown.map((row) => ({
        name: row.label,
        marks: [
          {
            arm: row === rows[0] ? null : row.arm,
            value: row.difference,
            low: row.family_low,
            high: row.family_high,
            title: `${row.label}: ${digits(row.difference, true)} ${row.unit}`,
          },
        ],
        text: `${digits(row.difference, true)} (${between({ low: row.family_low, high: row.family_high })})`,
      })),
      axis,
      zero: true,
      matters: primary.smallest_difference,
      label: `difference in ${unit} (${direction})`,
    });
  });
  selection("pick-arm", arms, (arm) => {
    now.arm = arm;
    put("tasks-title", `${arm} minus ${baseline}`);
    draw();
  });
  put(
    "forest-hint",
    `The diamond is the primary endpoint. Shaded: less than the smallest difference of interest. ${
      isEmpty("tests") ? "" : "The other intervals are simultaneous over these tests."
    }`,
  );
  if (isEmpty("tests")) return;
  const alone = ({ only_arm_right: arm, only_baseline_right: base }) =>
    arm === null ? "–" : `${number(arm)} to ${number(base)}`;
  drawTable("tests", rowsOf("tests"), [
    ["Arm", (row) => row.arm],
    ["Measured on", (row) => row.label],
    ["Outcome", (row) => row.outcome],
    ["#Items", (row) => number(row.items)],
    ["#Difference", (row) => `${digits(row.difference, true)} ${row.unit}`],
    [`#${coverage} interval`, (row) => between({ low: row.family_low, high: row.family_high })],
    ["#p, Holm", (row) => chanceOf(row.p_holm)],
    ["#Could see", (row) => digits(row.detectable)],
    ["#Only one is right", alone],
  ]);
  put(
    "tests-hint",
    `Holm’s adjustment: the probability of any false finding among these tests is at most ${Math.round(100 * primary.alpha)} %. “Could see” is the true difference that a test detects with ${Math.round(100 * primary.power)} % power. “Only one is right” counts items that only the arm, and only the baseline, has right. items.csv lists the ${number(data.differing)} items that differ.${
      rowsOf("tests").some((row) => row.outcome === "all alike")
        ? " “All alike”: no item differs, so the interval has no width and says nothing about other items."
        : ""
    }`,
  );
}

function drawRuns() {
  if (!isEmpty("runs_of_primary")) {
    const { treatment, baseline, unit } = primary;
    const rows = [
      {
        name: "mean",
        marks: [{ arm: null, ...primary, title: digits(primary.value, true) }],
        text: `${digits(primary.value, true)} (${between(primary)})`,
      },
      ...rowsOf("runs_of_primary").map((row) => ({
        name: `run ${row.run}`,
        marks: [{ arm: treatment, value: row.difference, title: digits(row.difference, true) }],
        text: `${digits(row.difference, true)} (${digits(row.treatment)} − ${digits(row.baseline)})`,
      })),
    ];
    const axis = around([
      ...rows.flatMap(({ marks: [of] }) => [of.value, of.low, of.high]),
      0,
      primary.smallest_difference,
      -primary.smallest_difference,
    ]);
    chart("by-run", (width) =>
      forest(width, {
        rows,
        axis,
        zero: true,
        matters: primary.smallest_difference,
        label: `${treatment} minus ${baseline}, ${unit}`,
      }),
    );
  }
  drawTable("runs", rowsOf("runs"), [
    ...["task", "metric", "filter", "arm"].map((name) => [
      name[0].toUpperCase() + name.slice(1),
      (row) => row[name],
    ]),
    ["#Run", (row) => row.run],
    ["#Value", (row) => digits(row.value)],
    ["Unit", (row) => row.unit],
    ["#lm-eval reports", (row) => figure(row.reported)],
  ]);
}

function drawScores() {
  const rows = rowsOf("scores");
  const kinds = ["main metrics", ...unique(rows.filter((row) => row.endpoint !== "average").map(metricOf))];
  const now = { kind: kinds[0] };
  const shown = () =>
    rows.filter((row) => (now.kind === kinds[0] ? row.main : metricOf(row) === now.kind));
  armLegend("legend", declared.arms);
  const draw = chart("scores", (width) => {
    const here = shown();
    // Units do not share an axis.
    const { unit } = here[0];
    const own = here.filter((row) => row.unit === unit);
    const drawn = unique(own.map((row) => row.endpoint)).map((endpoint) => {
      const of = own.filter((row) => row.endpoint === endpoint);
      return {
        name: of[0].label,
        guess: of[0].chance,
        text: of.map((row) => digits(row.value)).join(" · "),
        marks: of.map((row) => ({
          arm: row.arm,
          value: row.value,
          low: row.value_low,
          high: row.value_high,
          hollow: row.against_chance === "at chance",
          title: `${row.arm}: ${digits(row.value)} (${digits(row.value_low)} to ${digits(row.value_high)})`,
        })),
      };
    });
    const axis = around(
      own.flatMap((row) => [row.value, row.value_low, row.value_high, row.chance]),
      unit === points ? { limits: [0, 100] } : {},
    );
    return forest(width, { rows: drawn, axis, label: unit === points ? "points of 100" : unit });
  });
  selection("pick-metric", kinds, (kind) => ((now.kind = kind), draw()));
}

const metricOf = (row) => {
  const [metric, filter] = row.endpoint.slice(row.endpoint.lastIndexOf("/") + 1).split(",");
  return filter === "none" ? metric : `${metric} (${filter})`;
};

function drawRest() {
  if (!isEmpty("left_out"))
    drawTable("left_out", rowsOf("left_out"), [
      ["Task", (row) => row.task],
      ["Metric", (row) => row.metric ?? "–"],
      ["Filter", (row) => row.filter ?? "–"],
      ["Reason", (row) => el("div", { class: "rule" }, row.reason)],
    ]);
  put(
    "evaluations",
    table(
      ["Arm", "#Run", "Model", "Folder", "lm-eval", "#Tasks"],
      data.evaluations.map((of) => [of.arm, of.run, of.model, of.place, of.lm_eval, number(of.tasks)]),
    ),
  );
  for (const box of document.querySelectorAll("figure[data-csv]"))
    box.hidden = isEmpty(box.dataset.csv) && box.dataset.csv !== "tests";
  for (const block of document.querySelectorAll("section")) {
    const figures = [...block.querySelectorAll("figure[data-csv]")];
    if (figures.length) block.hidden = figures.every((box) => box.hidden);
  }
}

drawHead();
drawTests();
drawRuns();
drawScores();
drawRest();
