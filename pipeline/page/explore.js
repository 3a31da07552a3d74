// What the run did, and what another setting would keep, from the JSON in #data (report_data.py).

const data = JSON.parse(document.getElementById("data").textContent);
const NONE = [0, 0, 0];
const SYMBOLS = { pareto: "α", threshold: "threshold", random: "rate" };
const NAMES = {
  pareto: "Pareto",
  threshold: "Threshold",
  random: "Random",
  buckets: "Buckets",
  all: "Keep all",
};
const grouped = data.rule.name === "groups";
// What can be chosen: each source, followed by its groups with their own rules. A group has the keys
// of a source, except documents, domains and reasons, which belong to the source it is `of`.
const units = data.sources.flatMap((source) => [
  source,
  ...source.rule_groups.map((group) => Object.assign(group, { of: source })),
]);
const state = {
  unit: largestFiltered(),
  chosen: {}, // of each rule that was moved, by its key: {rule, stop}
  clearest: true,
  sort: { column: 2, down: true }, // of the table of sources: best first
};
const unitNow = () => units[state.unit];
const sourceNow = () => unitNow().of ?? unitNow();

// The place of the filtered unit of most documents; 0 where none is filtered.
function largestFiltered() {
  const documents = units.map((unit) =>
    unit.filtered && ownOf(unit) ? unit.histogram.reduce((sum, n) => sum + n, 0) : -1,
  );
  return documents.indexOf(Math.max(...documents));
}

// The rule by which a run decided about a unit; null for a source whose groups have their own.
function ownOf(unit) {
  return grouped ? (unit.rule ?? (unit.filtered ? null : { name: "all" })) : data.rule;
}

// Which rule a unit moves: there is one for each group, or one for all.
const keyOf = (unit) => (grouped ? (unit.group ?? null) : "");
const fullName = (unit) =>
  unit.of && !data.rule.by.includes("source") ? `${unit.of.name} ${unit.name}` : unit.name;
const hasControl = (unit) => keyOf(unit) !== null;

function stopsOf(unit, rule) {
  const own = ownOf(unit);
  return unit.stops?.[rule] ?? data.stops[rule] ?? [own?.parameter];
}

function ownStop(unit, rule) {
  const own = ownOf(unit);
  const stops = stopsOf(unit, rule);
  return rule === own.name ? stops.indexOf(own.parameter) : Math.floor(stops.length / 2);
}

// The setting of a unit's control; null if it has none.
function setting(unit) {
  const at = state.chosen[keyOf(unit)];
  if (!at || (at.rule === ownOf(unit).name && !(at.rule in data.stops))) return ownOf(unit);
  return { name: at.rule, parameter: stopsOf(unit, at.rule)[at.stop] };
}

function moved(unit) {
  const at = state.chosen[keyOf(unit)];
  const own = ownOf(unit);
  return Boolean(at) && (at.rule !== own.name || setting(unit).parameter !== own.parameter);
}

const anyMoved = () => units.some(moved);
const stopNow = (unit) => state.chosen[keyOf(unit)]?.stop ?? ownStop(unit, ownOf(unit).name);
const outcome = (source, name) => source.outcomes[name] ?? NONE;
const add = (rows) => rows.reduce((sum, row) => sum.map((value, i) => value + row[i]), NONE);

function describe(rule) {
  if (rule === null) return "a rule for each group";
  if (rule.name === "all") return "keep all";
  if (rule.name === "buckets") return `buckets of ${rule.copies.join(", ")} copies`;
  return `${SYMBOLS[rule.name]} = ${figure(rule.parameter)}`;
}

// Documents, bytes and words that a unit keeps at the chosen setting, a source with all its groups.
function yieldOf(unit) {
  const kept = outcome(unit, "kept");
  if (unit.filtered && moved(unit)) return unit.curves[setting(unit).name].map((n) => n[stopNow(unit)]);
  return (unit.rule_groups ?? [])
    .filter(moved)
    .reduce((sum, group) => {
      const [after, before] = [yieldOf(group), outcome(group, "kept")];
      return sum.map((n, i) => n + after[i] - before[i]);
    }, kept);
}

// The keep probability of a score.
function law(rule, score) {
  if (rule.name === "buckets") {
    const above = [1, ...rule.cuts.map((cut) => law({ name: "threshold", ...cut }, score)), 0];
    return rule.copies.reduce((sum, n, i) => sum + (n ? above[i] - above[i + 1] : 0), 0);
  }
  const { name, parameter, ties = 1 } = rule;
  if (name === "pareto") return (2 - score) ** -parameter;
  if (name === "threshold") return score === parameter ? ties : Number(score > parameter);
  return name === "random" ? parameter : 1;
}

const documents = (n, name) => ({ text: number(n), value: n, name });
const bytes = (n, name) => ({ text: size(n), value: n, name, title: `${number(n)} bytes` });
const mark = (unit) =>
  el(
    "span",
    { class: unit.of ? "group" : null },
    el("b", {}, unit.name),
    el(
      "span",
      { class: "faint" },
      unit.of ? ` ${describe(ownOf(unit))}` : unit.filtered ? " filtered" : " pass-through",
    ),
  );

function drawControl() {
  const unit = unitNow();
  const own = ownOf(unit);
  const now = setting(unit);
  const rules = hasControl(unit)
    ? Object.keys(data.stops).concat(own.name in data.stops ? [] : [own.name])
    : [];
  segments(
    "rules",
    rules.map((name) => NAMES[name]),
    rules.indexOf(now?.name),
    (i) => {
      state.chosen[keyOf(unit)] = { rule: rules[i], stop: ownStop(unit, rules[i]) };
      update();
    },
  );
  const stops = hasControl(unit) && now.name in data.stops ? stopsOf(unit, now.name) : [];
  const [range, value] = [document.getElementById("stop"), document.getElementById("value")];
  range.max = Math.max(0, stops.length - 1);
  range.value = stops.length ? stopNow(unit) : 0;
  range.disabled = value.disabled = !stops.length;
  document.getElementById("source").value = state.unit;
  range.setAttribute("aria-valuetext", describe(now));
  value.min = stops[0] ?? 0;
  value.max = stops.at(-1) ?? 1;
  value.step = now?.name === "pareto" ? 0.1 : 0.01;
  value.value = stops.length ? now.parameter : "";
  put("symbol", SYMBOLS[now?.name] ?? (hasControl(unit) ? "" : describe(own)));
  put("own", "Reset");
  document.getElementById("own").disabled = !moved(unit);
}

function listenToControl() {
  listen("stop", "input", (event) => {
    const rule = setting(unitNow()).name;
    state.chosen[keyOf(unitNow())] = { rule, stop: Number(event.target.value) };
    update();
  });
  listen("value", "change", (event) => {
    const wanted = Number(event.target.value);
    const rule = setting(unitNow()).name;
    const stops = stopsOf(unitNow(), rule);
    const distance = (i) => Math.abs(stops[i] - wanted);
    const stop = stops.reduce((best, _, i) => (distance(i) < distance(best) ? i : best), 0);
    state.chosen[keyOf(unitNow())] = { rule, stop };
    update();
  });
  listen("own", "click", () => {
    delete state.chosen[keyOf(unitNow())];
    update();
  });
  for (const [id, redraw] of Object.entries({ curve, histogram, rates }))
    listen(`${id}-log`, "change", redraw);
  const picker = document.getElementById("source");
  const title = (unit) => (unit.of ? `\u2003${unit.name}` : unit.name);
  picker.append(...units.map((unit, i) => el("option", { value: i }, title(unit))));
  picker.addEventListener("change", () => choose(Number(picker.value)));
}

function choose(unit) {
  state.unit = unit;
  drawSource();
  update();
}

// Two lines of a cell: a number, and what to compare it with.
const over = (text, below) => el("span", {}, text, el("span", { class: "interval" }, below));

// A source's scores in half as many bins: all, kept by this run, and expected at the chosen setting.
// Heights are square roots, relative to the source's highest bar, so that rare scores show.
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
  if (source.filtered && moved(source)) {
    const expected = all.map((n, i) => n * law(setting(source), (i + 0.5) / all.length));
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
  const row = (name, scores, average, read, kept, before, copied) => {
    const [low, high] = read[0] ? wilson(kept[0], read[0]) : [0, 0];
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
        ...meter(kept[0], read[0]).children,
        el("span", { class: "interval" }, read[0] ? `${percent(low, 1).replace(" %", "")} to ${percent(high, 1)}` : ""),
      ),
      {
        ...documents(kept[0], "documents"),
        text: over(number(kept[0]), [
          `of ${number(read[0])}`,
          against,
          copied && !change ? `, ${number(copied[0])} in training` : null,
        ]),
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
    ...[0, 1, 2].map((i) => (source) => yieldOf(source)[i]),
  ];
  const inOrder = (of) => sorted(of, keys[state.sort.column], state.sort.down);
  const ranked = inOrder(data.sources).flatMap((of) => [of, ...inOrder(of.rule_groups)]);
  const names = ["Source", "", "Mean score", "Kept", "Documents", "Text", "Words"];
  const heads = sortHeads(names, state.sort, (sort) => ((state.sort = sort), drawSources()));
  heads[1] = scale;
  const drawn = table(
    heads,
    ranked.map((unit) => {
      const counts = [read(unit), yieldOf(unit), kept(unit), unit.outcomes.copied];
      return row(mark(unit), spread(unit), score(unit), ...counts);
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
    line.classList.toggle("chosen-row", ranked[place] === unitNow());
    line.addEventListener("click", () => choose(units.indexOf(ranked[place])));
  }
  const box = document.getElementById("sources");
  box.classList.toggle("tall", units.length > 10);
  const place = box.scrollTop;
  box.replaceChildren(drawn);
  box.scrollTop = place;
  put("at", atWhat());
  legend("sources-legend", [
    ["box dropped", "dropped"],
    ["box kept", "kept by this run"],
    ...(anyMoved() ? [["dash chosen", "expected at the chosen setting"]] : []),
    ["upright mean", "mean"],
    ["", "bar heights: square root of the documents, by source"],
  ]);
  put(
    "command",
    data.write !== "all"
      ? "This run wrote only the kept documents; after a run with --write all, you can decide again."
      : anyMoved()
        ? [
            "To apply this setting: ",
            el("code", {}, `winnow decide --scored THIS_FOLDER --output NEW_FOLDER ${flags()}`),
          ]
        : "Move the slider to see what another setting keeps. The counts are exact: each document has a fixed draw.",
  );
}

// The setting that the table of sources shows.
function atWhat() {
  const changed = [...new Set(units.filter(moved).map((unit) => unit.group))];
  if (!grouped || !data.rule.by.length) {
    const unit = units.find((unit) => unit.filtered && ownOf(unit)) ?? unitNow();
    return anyMoved() ? `at ${describe(setting(unit))}` : `this run, ${describe(ownOf(unit))}`;
  }
  if (!changed.length) return "this run, a rule for each group";
  const [first] = changed;
  const at = describe(setting(units.find((unit) => unit.group === first)));
  return changed.length === 1 ? `${first} at ${at}` : `${changed.length} groups moved`;
}

// The flags by which winnow decide keeps what the chosen settings keep.
function flags() {
  const parameters = { pareto: "alpha", threshold: "threshold", random: "rate" };
  if (!grouped || !data.rule.by.length) {
    const { name, parameter } = setting(units.find((unit) => moved(unit)));
    return `--rule ${name}${parameters[name] ? ` --${parameters[name]} ${parameter}` : ""}`;
  }
  const rules = structuredClone(data.rules);
  for (const unit of units.filter(moved)) {
    const { name, parameter } = setting(unit);
    const at = unit.path.slice(0, -1).reduce((tree, value) => tree[value], rules);
    at[unit.path.at(-1)] = { rule: name, [parameters[name]]: parameter };
  }
  const quoted = JSON.stringify(rules).replaceAll("'", "'\\''");
  return `${data.rule.by.map((name) => `--rules-by ${name} `).join("")}--rules '${quoted}'`;
}

function update() {
  drawControl();
  drawSources();
  tellExamples();
  curve();
  histogram();
  rates();
  scatter();
}
