// The head of the page, the primary contrast and held-out text.

const percentage = `${Math.round(declared.coverage * 100)} %`;
const better = declared.gain > 0 ? "more is better" : "less is better";
const labelOf = (endpoint) => data.labels[endpoint];
const primaryName = labelOf(declared.endpoint);
const primaryText = declared.endpoint.startsWith("heldout/")
  ? `${primaryName} text`
  : `the ${primaryName}`;
const nameOf = (endpoint) => endpoint.replace(/^heldout\//, "");
const heldoutLabel = (name) => data.labels[`heldout/${name}`] ?? name;
const state = {
  endpoint: declared.heldout.includes(nameOf(declared.endpoint))
    ? nameOf(declared.endpoint)
    : declared.heldout[0],
  variant: declared.main,
  axis: "tokens",
  router: "entropy",
};

function drawHead() {
  put("study", `study ${data.study}`);
  put("question", data.question);
  put("headline", data.headline);
  put("next", el("b", {}, "Next: "), data.next);
  put("reach", data.reach ?? "");
  const note = (text) => {
    const [head, ...rest] = text.split("; ");
    const long = rest.length && text.length > 150;
    return long ? el("details", {}, el("summary", {}, `${head} …`), rest.join("; ")) : text;
  };
  const items = data.notes.map((text) => el("li", {}, note(text)));
  const rest = items.splice(3);
  const more = el("details", {}, el("summary", {}, `${number(rest.length)} more`), el("ul", {}, rest));
  put("notes", items, rest.length ? el("li", {}, more) : []);
  const { primary, jobs } = data;
  if (primary)
    put(
      "answer",
      el("b", {}, `${digits(primary.value, true)} ${primary.unit}`),
      ` (${percentage} interval ${between(primary)}): ${declared.treatment} minus ${declared.baseline}, ${better}.`,
    );
  put(
    "tiles",
    primary
      ? [
          tile(
            "Difference",
            digits(primary.value, true),
            `${primary.unit}, ${better}; ${percentage} interval ${between(primary)}`,
          ),
          tile(
            "Relative difference",
            primary.relative === null ? "–" : `${digits(100 * primary.relative, true)} %`,
            `of ${digits(primary.baseline_value)} ${primary.unit} (${declared.baseline})`,
          ),
          tile(
            "Smallest effect this study could detect",
            digits(data.detectable),
            `with ${Math.round(declared.power * 100)} % power; smallest of interest: ${digits(declared.smallest_difference)}`,
          ),
        ]
      : [],
    data.signs
      ? tile(
          "Sign kept",
          `${data.signs.kept} of ${data.signs.sizes} sizes`,
          data.signs.certainty,
        )
      : [],
    tile(
      "Runs",
      `${number(jobs.complete)} of ${number(jobs.declared)}`,
      `${number(declared.arms.length)} arms, ${number(declared.seeds.length)} seed${declared.seeds.length > 1 ? "s" : ""}`,
    ),
  );
}

function estimateRow(name, arm, of, extra = {}) {
  const title = `${name}: ${digits(of.value, true)} (${between(of)})`;
  return {
    name,
    marks: [{ arm, ...of, title, ...extra }],
    text: `${digits(of.value, true)} (${between(of)})`,
  };
}

// An axis of differences includes 0 and the smallest difference of interest.
const differenceAxis = (values, smallest = 0) => around([...values, 0, smallest, -smallest]);

function drawPrimary() {
  const { primary } = data;
  put("primary-title", `${declared.treatment} minus ${declared.baseline} on ${primaryText}`);
  if (!isEmpty("seeds")) {
    const errors = [
      [primary.seed_error, "between seeds"],
      [primary.item_error, "between held-out items"],
    ].map(([error, of]) => `${digits(error)} ${of}`);
    put(
      "primary-hint",
      `${data.sentence} Paired by seed. Shaded: less than the smallest difference of interest. Standard error ${digits(primary.error)} (${errors.join(", ")}), ${figure(Number((primary.df ?? 0).toFixed(1)))} degrees of freedom, p = ${chanceOf(primary.p)}.`,
    );
    const rows = [
      estimateRow("mean", null, primary),
      ...rowsOf("seeds").map((row) => ({
        name: `seed ${row.seed}`,
        marks: [
          {
            arm: declared.treatment,
            value: row.difference,
            title: `${digits(row.treatment)} against ${digits(row.baseline)}`,
          },
        ],
        text: `${digits(row.difference, true)} (${digits(row.treatment)} − ${digits(row.baseline)})`,
      })),
    ];
    const values = rows.flatMap(({ marks: [of] }) => [of.value, of.low, of.high]);
    const axis = differenceAxis(values, declared.smallest_difference);
    chart("seeds", (width) =>
      forest(width, {
        rows,
        axis,
        zero: true,
        matters: declared.smallest_difference,
        label: `difference in ${declared.unit} (${better})`,
      }),
    );
  }
  if (!isEmpty("secondary"))
    drawTable("secondary", rowsOf("secondary"), [
      ["Arm", (row) => `${row.arm} − ${row.against}`],
      ["Measured on", (row) => labelOf(row.endpoint)],
      ["#Difference", (row) => amountOf(row.difference, row.unit)],
      [`#${percentage} interval`, (row) => between({ low: row.family_low, high: row.family_high })],
      ["#p, Holm", (row) => chanceOf(row.p_holm)],
      ["Outcome", (row) => row.outcome],
    ]);
}

const amountOf = (value, unit) => (value === null ? "–" : `${digits(value, true)} ${unit}`);

function drawCalibration() {
  if (isEmpty("calibration")) return;
  drawTable("calibration", rowsOf("calibration"), [
    ["Check", (row) => row.check],
    ["#Seeds", (row) => String(row.seeds)],
    ["#Difference", (row) => digits(row.difference, true)],
    [`#${percentage} interval`, (row) => (row.low === null ? "–" : between(row))],
    ["#p", (row) => chanceOf(row.p)],
    ["Outcome", (row) => row.outcome],
  ]);
}

// Names as a list; of many, the first few.
function someOf(names, most = 6) {
  const rest = names.length - most;
  return rest > 1 ? `${names.slice(0, most).join(", ")} and ${number(rest)} more` : names.join(", ");
}

// Groups first; their sources are folded, since there may be many.
function drawHeldout() {
  if (isEmpty("heldout")) return;
  put("heldout-title", `Bits per byte minus those of ${declared.baseline} (less is better)`);
  put(
    "heldout-hint",
    `${percentage} intervals, over seeds and documents. With so many, some exclude 0 by chance: the tests are below.`,
  );
  put(
    "conclusions",
    data.conclusions.flatMap((of) => [
      el("dt", {}, of.label),
      el("dd", {}, of.conclusion, el("span", { class: "faint" }, someOf(of.sources))),
    ]),
  );
  const rows = rowsOf("heldout");
  const arms = declared.arms.filter((arm) => arm !== declared.baseline);
  const row = (name) => {
    const here = rows.filter((each) => nameOf(each.endpoint) === name);
    const own = here.find((each) => each.arm === declared.baseline);
    const marks = arms
      .map((arm) => here.find((each) => each.arm === arm && each.difference !== null))
      .filter(Boolean)
      .map((each) => ({
        arm: each.arm,
        value: each.difference,
        low: each.low,
        high: each.high,
        title: `${each.arm}: ${digits(each.difference, true)} (${between(each)})`,
      }));
    return { name: heldoutLabel(name), marks, text: own ? `${declared.baseline}: ${digits(own.value)}` : "" };
  };
  const groups = declared.heldout.filter((name) => name in declared.groups);
  groups.sort((a, b) => (b === state.endpoint) - (a === state.endpoint));
  const grouped = Object.values(declared.groups).flatMap((sources) =>
    sources.length > 1 ? sources : [],
  );
  const alone = new Set(Object.values(declared.groups).flat());
  const rest = unique(rows.map((each) => nameOf(each.endpoint))).filter(
    (name) => !groups.includes(name) && !alone.has(name),
  );
  const drawn = (names) => names.map(row).filter(({ marks }) => marks.length);
  const [of, sources] = [drawn([...groups, ...rest]), drawn(unique(grouped))];
  const draw = (id, shown) => {
    const axis = differenceAxis(
      shown.flatMap(({ marks }) => marks.flatMap((each) => [each.value, each.low, each.high])),
    );
    chart(id, (width) =>
      forest(width, { rows: shown, axis, zero: true, label: "difference in bits per byte" }),
    );
  };
  armLegend("heldout-legend", arms);
  draw("heldout", of);
  draw("heldout-sources", sources);
  put("heldout-sources-title", `The ${number(sources.length)} sources of these groups`);
  document.getElementById("heldout-fold").hidden = !sources.length;
}

drawHead();
drawCalibration();
drawPrimary();
drawHeldout();
