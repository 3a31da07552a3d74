// The head of the page, the primary contrast and held-out text.

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
      return el(
        "li",
        {},
        long ? el("details", {}, el("summary", {}, `${head} …`), rest.join("; ")) : note,
      );
    }),
  );
  const { primary, jobs } = data;
  const tile = (title, value, detail) =>
    el(
      "div",
      { class: "tile" },
      el("span", {}, title),
      el("strong", {}, value),
      el("span", { class: "interval" }, detail),
    );
  const energy = rowsOf("costs").reduce((sum, row) => sum + (row.kwh_sum ?? 0), 0);
  const bases = unique(rowsOf("costs").map((row) => row.kwh_basis)).filter(Boolean);
  put(
    "tiles",
    primary
      ? [
          tile(
            "Difference",
            digits(primary.value, true),
            `${primary.unit}, ${percentage} interval ${between(primary)}`,
          ),
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
    tile(
      "Jobs",
      `${number(jobs.complete)} of ${number(jobs.declared)}`,
      `complete, over ${declared.seeds.length} seeds`,
    ),
    tile("Electricity", electricity(energy), bases.join(" and ") || "nothing ran"),
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

// The edges of an axis of differences hold 0 and what matters.
const differenceAxis = (values, smallest = 0) => around([...values, 0, smallest, -smallest]);

function drawPrimary() {
  const { primary } = data;
  put("primary-title", `${declared.treatment} minus ${declared.baseline} on ${declared.endpoint}`);
  if (primary) {
    put(
      "primary-hint",
      `Paired by seed, in ${primary.unit} (${better}). Shaded: less than the smallest difference of interest, ${digits(declared.smallest_difference)}. Error of seeds ${digits(primary.seed_error)}, of held-out items ${digits(primary.item_error)}, together ${digits(primary.error)} with ${figure(Number((primary.df ?? 0).toFixed(1)))} degrees of freedom; p = ${chanceOf(primary.p)}.`,
    );
  }
  if (!saysWhy("seeds")) {
    const rows = [
      estimateRow("seeds and items together", null, primary),
      ...(primary.seed_low === null
        ? []
        : [
            estimateRow("seeds alone", null, {
              value: primary.value,
              low: primary.seed_low,
              high: primary.seed_high,
            }),
          ]),
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
          chanceOf(row.p),
          chanceOf(row.p_holm),
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
  const rows = rowsOf("heldout").map((row) => ({
    ...row,
    name: row.endpoint.replace(/^heldout\//, ""),
  }));
  const arms = declared.arms.filter((arm) => arm !== declared.baseline);
  const row = (name, indent = "") => {
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
    return {
      name: indent + name,
      marks,
      text: own ? `${declared.baseline}: ${digits(own.value)}` : "",
    };
  };
  const grouped = Object.entries(declared.groups).flatMap(([group, sources]) =>
    sources.length === 1
      ? [{ ...row(group), name: group === sources[0] ? group : `${group}: ${sources[0]}` }]
      : [row(group), ...sources.map((source) => row(source, "\u00a0\u00a0\u00a0"))],
  );
  const inGroups = new Set(Object.values(declared.groups).flat());
  const rest = unique(rows.map(({ name }) => name)).filter(
    (name) => !(name in declared.groups) && !inGroups.has(name),
  );
  const all = [...grouped, ...rest.map((name) => row(name))].filter(({ marks }) => marks.length);
  const axis = differenceAxis(
    all.flatMap(({ marks }) => marks.flatMap((of) => [of.value, of.low, of.high])),
  );
  const box = document.getElementById("heldout");
  box.before(el("div", { id: "heldout-legend", class: "legend" }));
  armLegend("heldout-legend", arms);
  chart("heldout", (width) =>
    forest(width, { rows: all, axis, zero: true, label: "difference in bits per byte" }),
  );
}

drawHead();
drawPrimary();
drawHeldout();
