// The other sections: tasks, experts, yields, costs, learning rates, jobs, provenance.

const AVERAGE_NAMES = { nlg: "NLG", nlu: "NLU", all: "All" };

// An average is compared with guessing if guessing has a meaning in each of its rows.
const atChance = (row) =>
  row.chance !== null &&
  (row.chance_rows ?? row.rows) === row.rows &&
  row.value_low <= row.chance &&
  row.chance <= row.value_high;

function scoreMarks(rows) {
  return declared.arms
    .map((arm) => rows.find((row) => row.arm === arm))
    .filter(Boolean)
    .map((row) => ({
      arm: row.arm,
      value: row.value,
      low: row.value_low,
      high: row.value_high,
      hollow: atChance(row),
      title: `${row.arm}: ${digits(row.value)} (${digits(row.value_low)} to ${digits(row.value_high)})${row.against_chance ? `, ${row.against_chance}` : ""}`,
    }));
}

function scoreRow(name, rows) {
  const marks = scoreMarks(rows);
  const values = marks.map((of) => digits(of.value)).join(" · ");
  return { name, marks, guess: rows[0].chance, text: values };
}

const scoreAxis = (rows, limits) =>
  around(
    rows.flatMap(({ marks, guess }) => [
      guess,
      ...marks.flatMap((of) => [of.value, of.low, of.high]),
    ]),
    { limits },
  );

// Bars stand on 0.
const fromNought = (rows) => {
  const { top } = scoreAxis(rows, [0, 100]);
  return { low: 0, top, ticks: ticks(top, 5) };
};

function drawTasks() {
  const averages = rowsOf("averages");
  const tasks = rowsOf("tasks").map((row) => {
    const [, task, metric, shots] = row.endpoint.split("/");
    return { ...row, task, metric, own: row.shots, shots };
  });
  const shots = declared.shots.filter((n) => [...averages, ...tasks].some((row) => row.shots === n));
  const metrics = unique(tasks.map((row) => row.metric)).sort();
  const now = { shots: shots[0], metric: metrics.includes("accuracy") ? "accuracy" : metrics[0] };
  const redraw = [];
  const again = () => {
    drawPartial();
    redraw.forEach((draw) => draw());
  };
  const scored = averages.filter((row) => row.average in AVERAGE_NAMES);
  const drawPartial = () => {
    const here = averages.filter((row) => row.shots === now.shots);
    const partial = here.filter((row) => row.partial && row.arm === here[0].arm);
    const gold = here.filter((row) => row.average === "gold");
    const guessed = here.filter(
      (row) => row.arm === here[0].arm && 0 < row.chance_rows && row.chance_rows < row.rows,
    );
    const bits = gold.map((row) => `${row.arm} ${digits(row.value)}`).join(", ");
    const said = [
      ...partial.map(
        ({ average, rows, of }) =>
          `${AVERAGE_NAMES[average]} is partial, over ${rows} of its ${of} rows, so it does not compare with GLaM’s. `,
      ),
      ...guessed.map(
        ({ average, chance_rows, rows }) =>
          `The chance line of ${AVERAGE_NAMES[average]} is a mean over ${chance_rows} of its ${rows} rows; guessing has no meaning in the others. `,
      ),
      gold.length ? `Bits per byte of the right answers: ${bits}.` : "",
    ];
    put("partial", said.map((text) => el("span", {}, text)));
  };
  if (!isEmpty("averages") || !isEmpty("tasks")) {
    segments(
      "pick-shots",
      shots.map((n) => (n === "1" ? "1 shot" : `${n} shots`)),
      0,
      (i) => ((now.shots = shots[i]), again()),
    );
    document.getElementById("pick-shots").hidden = shots.length < 2;
    armLegend("tasks-legend", declared.arms);
  }
  selection("pick-metric", metrics, (name) => ((now.metric = name), again()), words);
  if (metrics.length) document.getElementById("pick-metric").value = metrics.indexOf(now.metric);
  const drawRows = (rows, axis, label, bars) => (width) =>
    rows().length
      ? forest(width, { rows: rows(), axis: axis(rows()), label, bars })
      : el("p", { class: "empty" }, "No answers with this number of shots.");
  const inPoints = () => !now.metric.endsWith("bits_per_byte");
  if (!isEmpty("averages")) {
    const rows = () =>
      Object.keys(AVERAGE_NAMES)
        .map((average) => [
          average,
          scored.filter((row) => row.average === average && row.shots === now.shots),
        ])
        .filter(([, own]) => own.length)
        .map(([average, own]) =>
          scoreRow(
            `${AVERAGE_NAMES[average]} (${own[0].partial ? `${own[0].rows} of ${own[0].of}` : own[0].rows} rows)`,
            own,
          ),
        );
    redraw.push(chart("averages", drawRows(rows, fromNought, "points of 100", true)));
    drawPartial();
  }
  if (!isEmpty("tasks")) {
    const lacks = (task) => !tasks.some((r) => r.task === task && r.metric === now.metric && r.shots === now.shots);
    const others = () => unique(tasks.map((r) => r.task)).filter(lacks).map((task) => `Not measured so: ${task}. `);
    (redraw.push(() => put("otherwise", others())), put("otherwise", others()));
    const rows = () => {
      const here = tasks.filter((row) => row.shots === now.shots && row.metric === now.metric);
      return unique(here.map((row) => row.task)).map((task) => {
        const own = here.filter((row) => row.task === task);
        return scoreRow(now.shots === "few" ? `${task} (${own[0].own})` : task, own);
      });
    };
    redraw.push(
      chart("tasks", (width) =>
        drawRows(
          rows,
          (found) => scoreAxis(found, inPoints() ? [0, 100] : undefined),
          inPoints() ? "points of 100" : "bits per byte (less is better)",
        )(width),
      ),
    );
  }
  if (!isEmpty("contamination")) {
    redraw.push(() =>
      drawTable(
        "contamination",
        rowsOf("contamination").filter(
          (row) => row.shots === now.shots && row.metric === now.metric,
        ),
        [
          ["Task", (row) => row.task],
          ["Arm", (row) => row.arm],
          ["#Items", (row) => number(row.items)],
          ["#Dirty", (row) => percent(row.dirty, row.items)],
          ["#Too short to tell", (row) => percent(row.too_short, row.items)],
          ...["all", "clean", "dirty"].map((kind) => [
            `#Score, ${kind}`,
            (row) => digits(row[`score_${kind}`]),
          ]),
        ],
      ),
    );
    redraw.at(-1)();
  }
  if (!isEmpty("not_run"))
    drawTable("not_run", rowsOf("not_run"), [
      ["Task", (row) => row.task],
      ["Metric", (row) => words(row.metric ?? "–")],
      ["Average", (row) => AVERAGE_NAMES[row.average] ?? "–"],
      ["#Shots", (row) => row.shots ?? "–"],
      ["Reason", (row) => row.reason],
    ]);
}

function drawExperts() {
  const cells = rowsOf("expert_load").map((cell) => ({ ...cell, name: armName(cell) }));
  const names = unique(cells.map((cell) => cell.name));
  const texts = unique(cells.map((cell) => cell.source));
  const now = { name: names[0], text: texts[0] };
  let again = () => {};
  selection("pick-load", names, (name) => ((now.name = name), again()));
  selection("pick-text", texts, (text) => ((now.text = text), again()));
  if (!isEmpty("expert_load")) {
    again = chart("expert_load", (width) => {
      const here = cells.filter((cell) => cell.name === now.name && cell.source === now.text);
      put("load-title", `Load by layer and expert, seed ${here[0]?.seed ?? "–"}`);
      return here.length ? heatMap(width, here, `Expert load of ${now.name}`) : nothingHere();
    });
    put(
      "heat-legend",
      [0.25, 0.5, 1, 2, 4].map((ratio) => {
        const box = el("i", { class: "heat-scale" });
        box.style.background = heat(ratio);
        const edge = ratio === 0.25 ? " or less" : ratio === 4 ? " or more" : "";
        return el("span", {}, box, `${ratio}×${edge}`);
      }),
    );
  }
  const titles = { entropy: "Router entropy, 1 is even", dropped: "Dropped choices of experts" };
  const title = () => put("router-title", titles[state.router]);
  title();
  if (!isEmpty("routers")) {
    const kinds = Object.keys(titles);
    const lines = () =>
      runLines(
        rowsOf("routers").filter((row) => row.variant === state.variant),
        "tokens",
        state.router,
      );
    const tell = (found, value) =>
      unique(found.map((line) => line.arm)).map((arm) => {
        const values = found
          .filter((line) => line.arm === arm)
          .map((line) => nearest(line.points, value)[1]);
        return `${arm} at ${amount(value)}: ${unique(range(values).map((v) => digits(v))).join(" to ")}`;
      });
    const redraw = chart(
      "routers",
      lineChart(lines, () => ({ label: "tokens" }), "Routers along the training", tell),
    );
    segments("pick-router", kinds, 0, (i) => {
      state.router = kinds[i];
      title();
      redraw();
    });
  }
  if (!isEmpty("router_layers"))
    drawTable("router_layers", rowsOf("router_layers"), [
      ["Arm", armName],
      ["#Layer", (row) => row.layer],
      ["#Entropy", (row) => digits(row.entropy)],
      ["#Dropped", (row) => percent(row.dropped, 1)],
      ["#Busiest", (row) => `${digits(row.busiest)}×`],
      ["#Idlest", (row) => `${digits(row.idlest)}×`],
      ["#Unused", (row) => `${figure(row.unused)} of ${row.experts}`],
    ]);
}

function drawYields() {
  if (isEmpty("yields")) return;
  drawTable("yields", rowsOf("yields"), [
    ["Arm", (row, above) => (row.arm === above?.arm ? "" : row.arm)],
    ["Rule", (row, above) => (row.arm === above?.arm ? "" : el("div", { class: "rule" }, row.rule))],
    ["Source", (row) => row.source],
    ["#Documents", (row) => number(row.kept_documents)],
    ["#Keep rate", (row) => meter(row.kept_documents, row.pool_documents)],
    ["#Text", (row) => size(row.kept_bytes)],
    ["#Of bytes", (row) => percent(row.kept_bytes, row.pool_bytes)],
    ["#Tokens", (row) => short.format(row.kept_targets)],
    ["#Of tokens", (row) => percent(row.kept_targets, row.pool_targets)],
  ]);
}

function drawCosts() {
  put(
    "cost-hint",
    `FLOPs are computed from the model’s shape and include the arm’s share of scoring the raw pool. CO2e is computed from kWh at ${digits(data.co2e.kg_per_kwh)} kg per kWh, ${data.co2e.source}. Rows without “all seeds” are means over seeds.`,
  );
  const rows = rowsOf("costs");
  const time = (seconds) =>
    seconds >= 3600
      ? `${digits(seconds / 3600)} h`
      : seconds >= 120
        ? `${digits(seconds / 60)} min`
        : `${digits(seconds)} s`;
  const mass = (kg) => (kg < 0.1 ? `${digits(1000 * kg)} g` : `${digits(kg)} kg`);
  const quantities = [
    ["Model", "", (row) => row.model],
    ["Parameters", "counted", (row) => amount(row.parameters_total)],
    ["Active parameters", "counted", (row) => amount(row.parameters_active)],
    ["Learning rate", "", (row) => figure(row.learning_rate)],
    ["Tokens", "counted", (row) => amount(row.tokens)],
    ["Unique tokens", "counted", (row) => amount(row.unique_tokens)],
    ["Epochs", "counted", (row) => digits(row.epochs)],
    ["FLOPs", "estimated", (row) => amount(row.flops)],
    ["Time, all seeds", "measured", (row) => time(row.wall_seconds_sum)],
    [
      "Electricity, all seeds",
      unique(rows.map((row) => row.kwh_basis))
        .filter(Boolean)
        .join(" and "),
      (row) => electricity(row.kwh_sum),
    ],
    ["CO2e, all seeds", "estimated", (row) => mass(row.co2e_kg_sum)],
  ];
  put(
    "costs",
    table(
      ["", "", ...rows.map((row) => `#${armName(row)}`)],
      [
        [
          "Complete jobs",
          el("span", { class: "faint" }, "counted"),
          ...rows.map((row) => `${row.complete} of ${row.declared}`),
        ],
        ...quantities.map(([name, basis, of]) => [
          name,
          el("span", { class: "faint" }, basis),
          ...rows.map((row) => (row.complete ? of(row) : "–")),
        ]),
      ],
    ),
  );
}

function drawJobs() {
  const { complete, declared: all } = data.jobs;
  put("jobs-title", `${number(complete)} of ${number(all)} jobs are complete`);
  if (isEmpty("jobs")) return;
  drawTable("jobs", rowsOf("jobs"), [
    ["Arm", armName],
    ["#Seed", (row) => row.seed],
    ["State", (row) => row.state],
    ["Error", (row) => row.error ?? "–"],
  ]);
}

function drawProvenance() {
  const { shared, by_arm, runs, budget } = data.provenance;
  const parts = [
    ["What differs by arm", by_arm],
    ["Runs", runs],
    ["Budget as declared", budget],
  ].filter(([, value]) => Object.keys(value).length);
  put(
    "provenance",
    Object.keys(shared).length
      ? view(shared)
      : el("p", { class: "empty" }, "The results share no provenance, or have none."),
    parts.map(([title, value]) => fold(title, view(value))),
  );
}

// Hides figures without rows and lists the reasons at the end.
function hideEmpty() {
  for (const box of document.querySelectorAll("figure[data-csv]"))
    box.hidden = isEmpty(box.dataset.csv);
  for (const block of document.querySelectorAll("section, details.fold")) {
    const figures = [...block.querySelectorAll("figure[data-csv]")];
    if (figures.length) block.hidden = figures.every((box) => box.hidden);
  }
  const { jobs, not_run, ...rest } = data.empty;
  const why = unique(Object.values(rest));
  put("reasons", why.map((reason) => el("li", {}, reason)));
  document.getElementById("left-out").hidden = !why.length;
}

drawTasks();
drawExperts();
drawYields();
drawCosts();
drawJobs();
drawProvenance();
hideEmpty();
