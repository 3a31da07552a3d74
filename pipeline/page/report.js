// The other parts of the page of a pipeline run: its account, documents, domains, provenance.

function drawHead() {
  put("headline", data.headline);
  put("account", data.account.join(" "));
}

const LAST = ["read", "kept", "quarantined"];

// Drop reasons as bars, most frequent first, in parts of what was read.
function reasonBars(id, sources) {
  const totals = new Map();
  for (const source of sources)
    for (const [name, [n]] of Object.entries(source.outcomes))
      if (!LAST.includes(name) && n) totals.set(name, (totals.get(name) ?? 0) + n);
  const [read] = add(sources.map((source) => outcome(source, "read")));
  const most = Math.max(...totals.values());
  put(
    id,
    totals.size
      ? table(
          ["Reason", "", "#Documents", "#Of read"],
          [...totals]
            .sort((a, b) => b[1] - a[1])
            .map(([name, n]) => {
              const bar = el("span", { class: "meter wide" }, el("i", { class: "reason" }));
              bar.firstChild.style.width = `${(100 * n) / most}%`;
              const shown = name === "quality" ? "quality (the keep rule)" : name;
              return [shown, bar, documents(n, name), percent(n, read)];
            }),
        )
      : el("p", { class: "faint" }, "Nothing was dropped."),
  );
}

function drawAccounting() {
  const row = (name, of) => {
    const [read, kept, out] = [of("read"), of("kept"), of("quarantined")[0]];
    return [
      name,
      documents(read[0], "read"),
      documents(kept[0], "kept"),
      documents(read[0] - kept[0] - out, "dropped"),
      documents(out, "quarantined"),
    ];
  };
  put(
    "accounting",
    table(
      ["Source", "#Read", "#Kept", "#Dropped", "#Quarantined"],
      data.sources.map((source) => row(mark(source), (name) => outcome(source, name))),
      row("All", (name) => add(data.sources.map((source) => outcome(source, name)))),
    ),
  );
  const damaged = data.sources.filter((source) => source.damage.some((n) => n));
  if (!damaged.length) return;
  const kinds = ["mojibake", "U+FFFD", "cut short"];
  put(
    "damage",
    fold(
      "Damaged text",
      el(
        "p",
        { class: "hint" },
        "Documents decoded with the wrong charset, with invalid bytes, or cut short when they were crawled or stored.",
      ),
      scrolling(
        ["Source", ...kinds.flatMap((kind) => [`#${kind}`, "#Of read"])],
        damaged.map((source) => [
          mark(source),
          ...source.damage.flatMap((n) => [documents(n), percent(n, outcome(source, "read")[0])]),
        ]),
      ),
    ),
  );
}

let sorting = { column: 1, down: true };

function drawDomains() {
  const source = sourceNow();
  const key = (row) => (sorting.column === 4 ? row[3] / row[1] : row[sorting.column]);
  const rows = sorted(source.domains, key, sorting.down);
  const cells = ([name, n, nBytes, kept]) => {
    return [name, documents(n), bytes(nBytes), documents(kept), meter(kept, n)];
  };
  const names = ["Domain", "Documents", "Text", "Kept", "Kept share"];
  const heads = sortHeads(names, sorting, (sort) => ((sorting = sort), drawDomains()));
  const rest = source.other_domains;
  const drawn = table(
    heads,
    rows.map(cells),
    rest && cells([`${number(rest.domains)} other domains`, ...rest.counts]),
  );
  for (const line of drawn.rows)
    [...line.cells].slice(1).forEach((cell) => cell.classList.add("n"));
  put("domains", drawn);
}

function drawGroups() {
  const source = sourceNow();
  const [read] = source.outcomes.read;
  const [keptOfAll] = source.outcomes.kept ?? [0];
  const row = ([value, n, , kept, low, high]) => [
    value,
    documents(n),
    percent(kept, n),
    `${Number((100 * low).toPrecision(3))} to ${Number((100 * high).toPrecision(3))} %`,
    keptOfAll ? (kept / n / (keptOfAll / read)).toFixed(2) : "–",
  ];
  put(
    "groups",
    Object.entries(source.groups).map(([column, rows]) =>
      scrolling([column, "#documents", "#kept", "#interval", "#ratio"], rows.map(row)),
    ),
  );
}

const STEP = "dropped: ";
let cards = []; // of the chosen source: [example, element for its decision at the chosen setting]

// Kept and dropped documents. The clearest cases: kept with a high score, dropped with a low one.
function drawExamples() {
  const source = sourceNow();
  const found = [...new Map(source.examples.map((example) => [example.id, example])).values()];
  const certain = (example) => (example.kept ? 1 : -1) * (state.clearest ? 1 : -1);
  const byStep = (example) => example.level.startsWith(STEP);
  const ordered = found.sort(
    (a, b) => byStep(a) - byStep(b) || certain(a) * (b.score - a.score) || (a.id < b.id ? -1 : 1),
  );
  cards = [];
  const pane = (kept) => {
    const own = ordered.filter((example) => example.kept === kept);
    const none = found.length
      ? `No document was ${kept ? "kept" : "dropped"}.`
      : "No examples of this source on this page.";
    return el(
      "div",
      {},
      el("h3", {}, kept ? "Kept" : "Dropped"),
      el("div", { class: "pane" }, own.length ? own.map(exampleCard) : el("p", { class: "faint" }, none)),
    );
  };
  segments("order", ["Clearest cases first", "Closest cases first"], state.clearest ? 0 : 1, (i) => {
    state.clearest = i === 0;
    drawExamples();
    tellExamples();
  });
  put("examples", pane(true), pane(false));
}

function exampleCard(example) {
  const byStep = example.level.startsWith(STEP);
  const decision = byStep
    ? `dropped by ${example.level.slice(STEP.length)}`
    : example.kept
      ? "kept"
      : "dropped";
  const sign = example.draw < example.probability ? "<" : "≥";
  const told = el("span", {});
  cards.push([example, told]);
  return el(
    "details",
    { class: "example" },
    el(
      "summary",
      {},
      el("span", { class: `badge ${example.kept ? "kept" : "dropped"}` }, decision),
      el("span", { class: "num" }, `score ${example.score.toFixed(3)}`),
      byStep
        ? null
        : el(
            "span",
            { class: "num faint" },
            `draw ${example.draw.toFixed(3)} ${sign} keep probability ${example.probability.toFixed(3)}`,
          ),
      told,
      el("span", { class: "peek" }, example.text.slice(0, 300)),
      el("span", { class: "faint host" }, example.url ?? example.id),
    ),
    el(
      "dl",
      {},
      el("dt", {}, "url"),
      el("dd", {}, link(example.url)),
      el("dt", {}, "id"),
      el("dd", {}, example.id),
    ),
    el("pre", {}, example.text),
    example.cut
      ? el("p", { class: "faint" }, `Cut here, after ${number(example.text.length)} characters.`)
      : null,
  );
}

// Marks the documents that the chosen setting decides differently from this run.
function tellExamples() {
  const source = sourceNow();
  // The group of an example is not known here.
  const changed = source.filtered && moved(source);
  for (const [example, place] of cards) {
    const kept = changed && example.draw < law(setting(source), example.score);
    const other =
      changed && !example.level.startsWith(STEP) && kept !== example.kept;
    place.className = other ? "badge chosen" : "";
    place.textContent = other ? `${kept ? "kept" : "dropped"} at ${describe(setting(source))}` : "";
  }
}

// Only web addresses become links; anything else is shown as text.
function link(url) {
  if (url === null) return "–";
  if (!/^https?:\/\//i.test(url)) return url;
  return el("a", { href: url, rel: "noopener noreferrer nofollow", target: "_blank" }, url);
}

function drawClassifier() {
  const { path: place, fingerprint, card } = data.classifier;
  const about = isPlain(card) ? { card } : card;
  const entries = Object.entries(about);
  put(
    "classifier",
    view({
      path: place,
      fingerprint,
      ...Object.fromEntries(entries.filter(([, item]) => isFlat(item))),
    }),
    entries
      .filter(([, item]) => !isFlat(item))
      .map(([name, item]) => {
        const title = words(name);
        const section = fold(title[0].toUpperCase() + title.slice(1), view(item));
        section.open = name === "metrics";
        return section;
      }),
  );
}

function drawProvenance() {
  const about = data.provenance;
  const mono = (text) => el("code", {}, text);
  const more = (shown, all) =>
    shown < all
      ? el("p", { class: "hint" }, `${number(all - shown)} more are in manifest.json.`)
      : null;
  const range = (start, end) =>
    start === 0 && end === null
      ? "whole"
      : `${number(start)} to ${end === null ? "end" : number(end)}`;
  put(
    "provenance",
    view({ code: about.code, run_key: about.key, seed: about.seed, repeated_ids: about.duplicate_ids }),
    fold("Configuration", el("pre", {}, JSON.stringify(about.config, null, 2))),
    fold(
      `Inputs: ${number(about.n_inputs)} ranges, ${size(about.input_bytes)} stored`,
      scrolling(
        ["Source", "File", "#Range", "#Size", "XXH3-128"],
        about.inputs.map(([source, file, start, end, n, digest]) => [
          ...[source, mono(file), range(start, end), bytes(n), mono(digest)],
        ]),
      ),
      more(about.inputs.length, about.n_inputs),
    ),
    fold(
      `Shards: ${number(about.n_shards)} files, ${size(about.shard_bytes)}`,
      scrolling(
        ["File", "#Rows", "#Size", "XXH3-128"],
        about.shards.map(([file, rows, n, checksum]) => [
          ...[mono(file), documents(rows), bytes(n), mono(checksum)],
        ]),
      ),
      more(about.shards.length, about.n_shards),
    ),
    fold(
      "Statistics",
      scrolling(
        ["File", "#Rows", "XXH3-128"],
        Object.entries(about.statistics).map(([name, { rows, checksum }]) => [
          ...[mono(`statistics/${name}.parquet`), documents(rows), mono(checksum)],
        ]),
      ),
    ),
  );
}

function drawSource() {
  sorting = { column: 1, down: true };
  for (const node of document.querySelectorAll(".chosen-source"))
    node.replaceChildren(
      node.classList.contains("with-group") && unitNow().of
        ? fullName(unitNow())
        : sourceNow().name,
    );
  drawDomains();
  drawGroups();
  drawExamples();
  clusters();
  reasonBars("source-reasons", [sourceNow()]);
}

drawHead();
reasonBars("reasons", data.sources);
drawAccounting();
listenToControl();
listenToScatter();
listenToClusters();
drawClassifier();
drawProvenance();
choose(state.unit);
