// A blind reading test: two documents of one source, and which is better? Scores show at the end.

const ANSWER_KEYS = {
  ArrowLeft: "left", 1: "left", ArrowRight: "right", 2: "right", ArrowDown: "neither", 0: "neither",
};

function readingTest(test) {
  const answers = []; // of the pairs in their order
  let saved = true;
  let shown = false; // whether scores have been seen, after which nobody is blind any more
  const button = (text, act, kind) => {
    const node = el("button", { type: "button", class: kind }, text);
    node.addEventListener("click", act);
    return node;
  };
  const box = el("div", { id: "reading", tabindex: 0, "aria-label": "Blind reading test" });
  const done = () => shown || answers.length === test.pairs.length;

  function answer(better) {
    if (done()) return;
    answers.push(better);
    saved = false;
    draw();
  }

  function back() {
    if (shown || !answers.length) return;
    answers.pop();
    draw();
  }

  function draw() {
    const places = [...box.children].filter((node) => node.contains(document.activeElement));
    box.replaceChildren(...(done() ? result() : question()));
    if (places.length) box.focus({ preventScroll: true });
  }

  function question() {
    const at = answers.length;
    const pair = test.pairs[at];
    const side = (i) =>
      el(
        "div",
        {},
        el("h3", {}, ["First", "Second"][i]),
        el("pre", {}, pair.texts[i]),
        pair.cut[i] ? el("p", { class: "faint" }, "The text goes on.") : null,
      );
    return [
      el(
        "p",
        { class: "hint" },
        "Which of the two would you rather have a model learn from? Both are from one source and of similar length. Keys: ← or 1, → or 2, ↓ or 0 if you can’t tell, Backspace to go back.",
      ),
      el(
        "div",
        { class: "answers" },
        button("← First is better", () => answer("left")),
        button("Can’t tell", () => answer("neither")),
        button("Second is better →", () => answer("right")),
        el("span", { class: "faint", role: "status" }, `Pair ${at + 1} of ${test.pairs.length}, ${pair.source}`),
        at ? button("Back", back, "plain") : null,
        at ? button("Stop and show the result", () => ((shown = true), draw()), "plain") : null,
      ),
      el("div", { class: "columns two" }, side(0), side(1)),
    ];
  }

  // How often answers and scores agree: [name, pairs, those without an answer, agreeing ones].
  function counts() {
    const found = answers.map((better, i) => {
      const [left, right] = test.pairs[i].scores;
      const agrees = better === "neither" ? null : left > right === (better === "left");
      return { distance: Math.abs(left - right), agrees };
    });
    const row = (name, own) => {
      const told = own.filter(({ agrees }) => agrees !== null);
      return [name, own.length, own.length - told.length, told.filter(({ agrees }) => agrees).length];
    };
    const ends = [...test.edges, 1];
    const strata = test.edges.map((low, i) =>
      row(
        `${low} to ${ends[i + 1]}`,
        found.filter(({ distance: d }) => d >= low && (d < ends[i + 1] || i === test.edges.length - 1)),
      ),
    );
    return [row("all", found), ...strata.filter(([, n]) => n)];
  }

  function result() {
    shown = true; // from now on the reader knows
    const cells = ([name, n, none, agreed]) => {
      const told = n - none;
      const [low, high] = told ? wilson(agreed, told).map((v) => Math.round(100 * v)) : [];
      return [
        name,
        number(n),
        number(none),
        number(agreed),
        told ? `${Math.round((100 * agreed) / told)} %` : "–",
        told ? `${low} to ${high} %` : "–",
      ];
    };
    const reader = el("input", { type: "text", maxlength: 60, "aria-label": "Your name" });
    return [
      el(
        "p",
        { class: "hint" },
        "How often the document that you found better has the higher score. At 50 % the score does not agree with you more than chance. Pairs that you couldn’t decide do not count.",
      ),
      scrolling(
        ["Score distance", "#Pairs", "#Couldn’t tell", "#Agreed", "#Agreement", "#95 % interval"],
        counts().map(cells),
      ),
      el(
        "div",
        { class: "answers" },
        el("label", {}, "Your name ", reader),
        button("Save the answers", () => save(reader.value)),
        el("span", { class: "faint" }, "then run ", el("code", {}, "winnow report THIS_FOLDER --reading FILE")),
      ),
    ];
  }

  function save(reader) {
    const value = {
      format: test.format,
      run: test.run,
      pairs: test.fingerprint,
      reader,
      answers: answers.map((better, pair) => ({ pair, better })),
    };
    const text = `${JSON.stringify(value, null, 1)}\n`;
    const href = `data:application/json;charset=utf-8,${encodeURIComponent(text)}`;
    el("a", { href, download: "reading-answers.json" }).click();
    saved = true;
  }

  // Arrows and digits answer only here, so that the page's other controls keep their keys.
  box.addEventListener("keydown", (event) => {
    if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
    const better = ANSWER_KEYS[event.key];
    if (!better && event.key !== "Backspace") return;
    event.preventDefault();
    if (better) answer(better);
    else back();
  });
  addEventListener("beforeunload", (event) => {
    if (!saved) event.preventDefault();
  });
  draw();
  return el("section", { id: "panel-reading-test" }, el("h2", {}, "Blind reading test"), box);
}

if (data.reading) document.querySelector("main > section").before(readingTest(data.reading));
