// The other parts of the page of a pipeline run: its account, domains, examples, provenance.

function drawHead() {
  put("headline", data.headline);
  put(
    "account",
    data.account.map((sentence) => el("p", {}, sentence)),
  );
  const sum = (name) => add(data.sources.map((source) => outcome(source, name)));
  const [read, kept, lost] = [sum("read"), sum("kept"), sum("quarantined")];
  const tile = (title, big, small) =>
    el(
      "div",
      { class: "tile" },
      el("span", {}, title),
      el("strong", {}, big),
      el("span", { class: "faint" }, small),
    );
  const gone = read[0] - kept[0] - lost[0];
  put(
    "tiles",
    tile("Read", number(read[0]), `documents, ${size(read[1])} of text`),
    tile(
      "Kept",
      number(kept[0]),
      `${percent(kept[0], read[0])} of documents, ${percent(kept[1], read[1])} of bytes`,
    ),
    tile("Dropped", number(gone), `${percent(gone, read[0])} of documents`),
    tile("Quarantined", number(lost[0]), "records that could not be read"),
  );
}

// Drop reasons, most frequent first; the rule's own before those of the steps.
function dropReasons() {
  const totals = new Map([["quality", 0]]);
  for (const source of data.sources) {
    for (const [name, [n]] of Object.entries(source.outcomes)) {
      if (!["read", "kept", "quarantined"].includes(name))
        totals.set(name, (totals.get(name) ?? 0) + n);
    }
  }
  const [[, quality], ...steps] = [...totals];
  return [
    ...(quality ? ["quality"] : []),
    ...steps
      .filter(([, n]) => n)
      .sort((a, b) => b[1] - a[1])
      .map(([name]) => name),
  ];
}

// The colour class of a reason: grey for the rule, then four colours, then one for all others.
const shade = (reason, place) => (reason === "quality" ? "dropped" : `series${Math.min(place, 5)}`);

function drawSources() {
  const reasons = dropReasons();
  const steps = reasons.filter((name) => name !== "quality");
  const color = (reason) => shade(reason, steps.indexOf(reason) + 1);
  put(
    "outcomes",
    data.sources.map((source) => {
      const read = outcome(source, "read")[0];
      const parts = [
        ["kept", "kept"],
        ...reasons.map((name) => [name, color(name)]),
        ["quarantined", "lost"],
      ].map(([name, kind]) => {
        const n = outcome(source, name)[0];
        if (!n) return null;
        const part = el("i", {
          class: kind,
          title: `${name}: ${number(n)} of ${number(read)} documents`,
        });
        part.style.flexGrow = n / read;
        return part;
      });
      return el(
        "div",
        { class: "outcome" },
        el("span", { class: "name" }, mark(source)),
        el("div", { class: "stack" }, parts),
        el("span", { class: "share" }, percent(outcome(source, "kept")[0], read)),
      );
    }),
  );
  const key = (kind, text) => el("span", {}, el("i", { class: `box ${kind}` }), text);
  const lost = data.sources.some((source) => outcome(source, "quarantined")[0]);
  document.getElementById("outcomes").append(
    el(
      "div",
      { class: "legend" },
      key("kept", "kept"),
      reasons
        .slice(0, reasons.length - steps.length)
        .map(() => key("dropped", "dropped by the rule")),
      steps.slice(0, steps.length > 5 ? 4 : 5).map((name) => key(color(name), `dropped: ${name}`)),
      steps.length > 5 ? key("series5", "dropped: other reasons") : null,
      lost ? key("lost", "quarantined") : null,
    ),
  );

  const row = (name, of) => {
    const [read, kept, out] = [of("read"), of("kept"), of("quarantined")[0]];
    return [
      name,
      documents(read[0], "read"),
      bytes(read[1]),
      documents(kept[0], "kept"),
      bytes(kept[1]),
      percent(kept[0], read[0]),
      documents(read[0] - kept[0] - out, "dropped"),
      documents(out, "quarantined"),
    ];
  };
  const every = (name) => add(data.sources.map((source) => outcome(source, name)));
  put(
    "sources",
    table(
      ["Source", "#Read", "#Text", "#Kept", "#Text", "#Share", "#Dropped", "#Quarantined"],
      data.sources.map((source) => row(mark(source), (name) => outcome(source, name))),
      row("All", every),
    ),
  );

  const damaged = data.sources.filter((source) => source.damage.some((n) => n));
  if (damaged.length) {
    const kinds = ["mojibake", "U+FFFD", "cut short"];
    put(
      "damage",
      el("h3", {}, "Damaged text"),
      el(
        "p",
        { class: "hint" },
        "Documents that show a charset that was once taken for another one, bytes without meaning, or that were cut short when they were crawled or stored.",
      ),
      el(
        "div",
        { class: "scroll" },
        table(
          ["Source", ...kinds.flatMap((kind) => [`#${kind}`, "#Share of read"])],
          damaged.map((source) => [
            mark(source),
            ...source.damage.flatMap((n) => [
              documents(n),
              percent(n, outcome(source, "read")[0]),
            ]),
          ]),
        ),
      ),
    );
  }

  if (!reasons.length) return;
  const touched = data.sources.filter((source) => reasons.some((name) => outcome(source, name)[0]));
  const cell = (n, read, name) => ({
    ...documents(n, name),
    title: `${percent(n, read)} of ${number(read)} read`,
  });
  put(
    "reasons",
    el("h3", {}, "Dropped, by reason"),
    el(
      "div",
      { class: "scroll" },
      table(
        ["Reason", ...touched.map((source) => `#${source.name}`), "#All", "#Share of read"],
        reasons.map((name) => [
          el(
            "span",
            {},
            el("i", { class: `box ${color(name)}` }),
            name === "quality" ? "quality (the rule)" : name,
          ),
          ...touched.map((source) =>
            cell(outcome(source, name)[0], outcome(source, "read")[0], name),
          ),
          documents(every(name)[0]),
          percent(every(name)[0], every("read")[0]),
        ]),
      ),
    ),
  );
}

let sorting = { column: 1, down: true };

function drawDomains() {
  const source = data.sources[state.source];
  const keys = [
    (row) => row[0],
    (row) => row[1],
    (row) => row[2],
    (row) => row[3],
    (row) => row[3] / row[1],
  ];
  const key = keys[sorting.column];
  const order = (a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0);
  const rows = [...source.domains].sort((a, b) => (sorting.down ? order(b, a) : order(a, b)));
  const cells = ([name, n, nBytes, kept]) => {
    const meter = el("span", { class: "meter" }, el("i", {}));
    meter.firstChild.style.width = `${(100 * kept) / n}%`;
    return [
      name,
      documents(n),
      bytes(nBytes),
      documents(kept),
      el("span", {}, meter, el("span", { class: "portion" }, percent(kept, n))),
    ];
  };
  const heads = ["Domain", "#Documents", "#Text", "#Kept", "#Kept share"].map((text, i) => {
    const button = el(
      "button",
      { type: "button", "aria-label": `sort by ${text.replace("#", "")}` },
      text.replace("#", ""),
      el("span", {}, sorting.column !== i ? "" : sorting.down ? " ↓" : " ↑"),
    );
    button.addEventListener("click", () => {
      sorting = { column: i, down: sorting.column === i ? !sorting.down : i > 0 };
      drawDomains();
    });
    return button;
  });
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
  const source = data.sources[state.source];
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
      el(
        "div",
        { class: "scroll" },
        table([column, "#documents", "#kept", "#interval", "#ratio"], rows.map(row)),
      ),
    ),
  );
}

function drawExamples() {
  const source = data.sources[state.source];
  const levels = new Map();
  for (const example of source.examples) {
    if (!levels.has(example.level)) levels.set(example.level, []);
    levels.get(example.level).push(example);
  }
  const title = (level) =>
    level === "decision"
      ? "Nearest to the decision"
      : level.startsWith("dropped: ")
        ? `Dropped before the decision: ${level.slice(9)}`
        : `Score ${level.replace("-", " to ")}`;
  const rank = (level) =>
    level === "decision" ? "0" : level.startsWith("dropped") ? `2${level}` : `1${level}`;
  const groups = [...levels].sort((a, b) => (rank(a[0]) < rank(b[0]) ? -1 : 1));
  put(
    "examples",
    groups.length
      ? groups.map(([level, examples]) => {
          const side = (kept) =>
            el(
              "div",
              { class: "side" },
              examples.filter((example) => example.kept === kept).map(exampleCard),
            );
          return el(
            "details",
            { class: "fold", open: level === "decision" || !source.filtered ? "" : null },
            el("summary", {}, title(level)),
            level.startsWith("dropped")
              ? side(false)
              : el("div", { class: "columns two" }, side(true), side(false)),
          );
        })
      : el("p", { class: "faint" }, "No examples of this source on this page."),
  );
}

function exampleCard(example) {
  const facts = `${example.kept ? "kept" : "dropped"}`;
  return el(
    "details",
    { class: "example" },
    el(
      "summary",
      {},
      el("span", { class: `badge ${facts}` }, facts),
      el("span", { class: "num" }, `score ${example.score.toFixed(3)}`),
      el("span", { class: "faint host" }, example.url ?? example.id),
      el("span", { class: "peek" }, example.text.slice(0, 300)),
    ),
    el(
      "dl",
      {},
      el("dt", {}, "url"),
      el("dd", {}, link(example.url)),
      el("dt", {}, "id"),
      el("dd", {}, example.id),
      el("dt", {}, "decision"),
      el("dd", {}, `draw ${figure(example.draw)}, keep probability ${figure(example.probability)}`),
    ),
    el("pre", {}, example.text),
  );
}

// Only web addresses become links; anything else is shown as text.
function link(url) {
  if (url === null) return "–";
  if (!/^https?:\/\//i.test(url)) return url;
  return el("a", { href: url, rel: "noopener noreferrer nofollow", target: "_blank" }, url);
}

function fold(title, ...content) {
  return el("details", { class: "fold" }, el("summary", {}, title), content);
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
        const section = fold(words(name), view(item));
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
    view({
      code: about.code,
      run_key: about.key,
      seed: about.seed,
      repeated_ids: about.duplicate_ids,
    }),
    fold("Configuration", el("pre", {}, JSON.stringify(about.config, null, 2))),
    fold(
      `Inputs: ${number(about.n_inputs)} ranges, ${size(about.input_bytes)} stored`,
      el(
        "div",
        { class: "scroll" },
        table(
          ["Source", "File", "#Range", "#Size", "XXH3-128"],
          about.inputs.map(([source, file, start, end, n, digest]) => [
            source,
            mono(file),
            range(start, end),
            bytes(n),
            mono(digest),
          ]),
        ),
      ),
      more(about.inputs.length, about.n_inputs),
    ),
    fold(
      `Shards: ${number(about.n_shards)} files, ${size(about.shard_bytes)}`,
      el(
        "div",
        { class: "scroll" },
        table(
          ["File", "#Rows", "#Size", "XXH3-128"],
          about.shards.map(([file, rows, n, checksum]) => [
            mono(file),
            documents(rows),
            bytes(n),
            mono(checksum),
          ]),
        ),
      ),
      more(about.shards.length, about.n_shards),
    ),
    fold(
      "Statistics",
      el(
        "div",
        { class: "scroll" },
        table(
          ["File", "#Rows", "XXH3-128"],
          Object.entries(about.statistics).map(([name, { rows, checksum }]) => [
            mono(`statistics/${name}.parquet`),
            documents(rows),
            mono(checksum),
          ]),
        ),
      ),
    ),
  );
}

function drawSource() {
  sorting = { column: 1, down: true };
  for (const node of document.querySelectorAll(".chosen-source"))
    node.replaceChildren(data.sources[state.source].name);
  histogram();
  rates();
  drawDomains();
  drawGroups();
  drawExamples();
}

drawHead();
drawSources();
listenToControl();
drawClassifier();
drawProvenance();
drawSource();
update();
