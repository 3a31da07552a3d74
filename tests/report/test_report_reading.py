"""The blind reading test: which pairs are drawn, what answers count for, and the page."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from browser import needs_browser, opened
from report_run import invented, scored, write_run
from statsmodels.stats.proportion import proportion_confint

from pipeline import report
from pipeline.output.manifest import read_manifest
from pipeline.page import reading_test
from pipeline.page.reading_pairs import CHARACTERS, EDGES, LENGTH_RATIO, draw_pairs, pair_up
from pipeline.rules.decision import Rule

HACK = "<img src=x onerror='window.hacked=1'></script><script>window.hacked=1</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run and its documents by id; those of ``mail`` show up in no pair, a tenth was dropped."""
    output = tmp_path_factory.mktemp("reading") / "scored"
    rng = np.random.default_rng(5)
    texts = [f"{HACK} {'word ' * rng.integers(5, 60)}{i}" for i in range(300)]
    texts[0] = "long " * CHARACTERS
    batches = {
        "web": invented("web", 900, rng),
        "news": scored("news", texts, [None] * 300, rng.random(300)),
        "mail": invented("mail", 100, rng),
    }
    write_run(output, batches, Rule("pareto", 2.0), {"web", "news"})
    rows = [row for batch in batches.values() for row in batch.to_pylist()]
    return str(output), {row["id"]: row for row in rows}


def test_pairs_are_what_they_say(run):
    output, documents = run
    pairs = draw_pairs(output, read_manifest(output), 160).to_pylist()
    assert len(pairs) == 160
    ids = [pair[f"{side}_id"] for pair in pairs for side in ("left", "right")]
    assert len(set(ids)) == len(ids)
    assert all(documents[i]["drop_reason"] is None for i in ids)  # no step dropped it
    strata = Counter()
    for pair in pairs:
        two = [documents[pair[f"{side}_id"]] for side in ("left", "right")]
        assert {document["source"] for document in two} == {pair["source"]}
        sizes = [document["bytes"] for document in two]
        assert max(sizes) <= LENGTH_RATIO * min(sizes)
        for document, side in zip(two, ("left", "right"), strict=True):
            assert pair[f"{side}_score"] == document["quality_score"]
            assert pair[f"{side}_text"] == document["text"][:CHARACTERS]
            assert pair[f"{side}_cut"] == (len(document["text"]) > CHARACTERS)
        distance = abs(pair["left_score"] - pair["right_score"])
        strata[sum(distance >= edge for edge in EDGES), pair["source"]] += 1
    # Two sources, as many strata as edges, none under the first: 160 pairs fill each with 20.
    assert strata == {(i, s): 20 for i in range(1, len(EDGES) + 1) for s in ("web", "news")}
    higher = sum(pair["left_score"] > pair["right_score"] for pair in pairs)
    assert 55 <= higher <= 105  # of 160 at one half: four standard deviations


def test_pairs_follow_from_the_seed_alone(run):
    output, _ = run
    manifest = read_manifest(output)
    pairs = draw_pairs(output, manifest, 30)
    assert pairs.equals(draw_pairs(output, manifest, 30))
    other = manifest | {"config": manifest["config"] | {"seed": 1}}
    shared = set(pairs["left_id"].to_pylist()) & set(
        draw_pairs(output, other, 30)["left_id"].to_pylist()
    )
    assert len(shared) < 10


def test_pairs_do_not_depend_on_the_order_of_documents():
    rng = np.random.default_rng(0)
    sample = pa.table(
        {
            "source": rng.choice(["a", "b", "c"], 200),
            "score": rng.random(200, np.float32),
            "bytes": rng.integers(1, 3000, 200),
            "rank": rng.random(200),
        }
    )
    shuffled = rng.permutation(200)
    found = [set(map(tuple, pair_up(sample, 40).tolist()))]
    found.append({tuple(shuffled[list(p)]) for p in pair_up(sample.take(shuffled), 40).tolist()})
    assert found[0] == found[1]
    assert len(found[0]) == 40


def test_scores_that_hardly_differ_make_no_pair(tmp_path):
    flat = scored("web", [f"text {i}" for i in range(50)], [None] * 50, np.linspace(0.5, 0.505, 50))
    manifest = write_run(tmp_path, {"web": flat}, Rule("pareto", 1.0), {"web"})
    with pytest.raises(ValueError, match=r"differ by 0\.01 or more"):
        draw_pairs(str(tmp_path), manifest, 5)


def answers_to(test, better, reader="Ada", **other):
    answers = [{"pair": i, "better": side} for i, side in enumerate(better)]
    value = {"format": reading_test.FORMAT, "run": test.run, "pairs": test.fingerprint}
    return value | {"reader": reader, "answers": answers} | other


def test_agreement_is_that_of_a_plain_loop(run, tmp_path):
    output, _ = run
    manifest = read_manifest(output)
    test = reading_test.ReadingTest("key", draw_pairs(output, manifest, 60), None)
    rng = np.random.default_rng(1)
    better = rng.choice(["left", "right", "neither"], 50).tolist()  # ten were not reached
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(answers_to(test, better)))
    rows = reading_test.agreement_rows({}, {"reading": reading_test.read_answers(str(path), test)})
    whole, parts = rows[0], rows[1:]
    agreed = told = 0
    for pair, side in zip(test.pairs.to_pylist(), better, strict=False):
        if side != "neither":
            told += 1
            other = {"left": "right", "right": "left"}[side]
            agreed += pair[f"{side}_score"] > pair[f"{other}_score"]
    low, high = proportion_confint(agreed, told, method="wilson")
    assert whole == {
        "reader": "Ada",
        "score distance": "all",
        "pairs": 50,
        "could not tell": 50 - told,
        "agreed": agreed,
        "agreement": f"{100 * agreed / told:.0f} %",
        "interval": f"{100 * low:.0f} to {100 * high:.0f} %",
    }
    for name in ("pairs", "could not tell", "agreed"):
        assert sum(row[name] for row in parts) == whole[name]
    assert [row["score distance"] for row in parts] == [
        "0.01 to 0.1",
        "0.1 to 0.3",
        "0.3 to 0.6",
        "0.6 to 1",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": "other"}, "belongs to the run other"),
        ({"pairs": "0"}, "answers other pairs"),
        ({"format": "2"}, "has no answers"),
        ({"reader": 3}, "has no answers"),
        ({"answers": [{"pair": 7, "better": "left"}]}, "an invalid answer"),
        ({"answers": [{"pair": True, "better": "left"}]}, "an invalid answer"),
        ({"answers": [{"pair": 0, "better": "up"}]}, "an invalid answer"),
        ({"answers": [{"pair": 0, "better": "left"}] * 2}, "answers pair 0 twice"),
    ],
)
def test_answers_that_do_not_belong_here_are_refused(run, tmp_path, change, message):
    output, _ = run
    test = reading_test.ReadingTest("key", draw_pairs(output, read_manifest(output), 5), None)
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(answers_to(test, ["left"]) | change))
    with pytest.raises(ValueError, match=message):
        reading_test.read_answers(str(path), test)
    path.write_text("{")
    with pytest.raises(ValueError, match="has no answers"):
        reading_test.read_answers(str(path), test)


def copied(run, tmp_path):
    """The run anew, for a test that changes its folder."""
    documents = run[1]
    batches = {}
    for name in ("web", "news", "mail"):
        own = [row for row in documents.values() if row["source"] == name]
        columns = zip(
            *((row["text"], row["url"], row["quality_score"]) for row in own), strict=True
        )
        batches[name] = scored(name, *map(list, columns))
    write_run(tmp_path, batches, Rule("pareto", 2.0), {"web", "news"})
    return str(tmp_path)


def test_page_and_card_cite_answers(run, tmp_path, capsys):
    output = copied(run, tmp_path / "run")
    page, card = tmp_path / "run" / "report.html", tmp_path / "run" / "README.md"
    before = page.read_bytes(), card.read_bytes()
    report.main([output, "--pairs", "20"])
    assert "20 to read" in capsys.readouterr().out
    test = reading_test.load(output, read_manifest(output))
    higher = [
        "left" if p["left_score"] > p["right_score"] else "right" for p in test.pairs.to_pylist()
    ]
    files = [tmp_path / name for name in ("a.json", "b.json")]
    files[0].write_text(json.dumps(answers_to(test, higher)))
    files[1].write_text(json.dumps(answers_to(test, ["neither"] * 3, "Bo|b")))
    for _ in range(2):  # the same file counts once
        report.main([output, *(f"--reading={file}" for file in files)])
    out = capsys.readouterr().out
    assert "Ada and the score agree in 20 of 20 pairs (100 %, 95 % interval 84 to 100 %)" in out
    assert "| Ada | all | 20 | 0 | 20 | 100 % | 84 to 100 % |" in card.read_text()
    assert "| Bo\\|b | all | 3 | 3 | 0 | – | – |" in card.read_text()
    assert "What readers found" in page.read_text()
    report.main([output])  # stays
    assert "| Ada | all | 20 |" in card.read_text()
    for arguments, code, message in (
        (["--pairs", "10"], 1, "has answers to 20 pairs"),
        (["--pairs", "0"], 2, "--pairs is from 1 to 200"),
        (["--reading", str(tmp_path / "none.json")], 1, "No such file"),
        (["--reading", str(card)], 1, "has no answers"),
    ):
        with pytest.raises(SystemExit) as left:
            report.main([output, *arguments])
        assert left.value.code == code
        assert message in capsys.readouterr().err
    # Pairs of another run are as good as not there.
    manifest = read_manifest(output)
    assert reading_test.load(output, manifest | {"key": "beef"}) is None
    for file in (tmp_path / "run" / "reading").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="draw its pairs with --pairs first"):
        reading_test.take_up(output, manifest, str(files[0]))
    report.main([output])
    assert (page.read_bytes(), card.read_bytes()) == before


@needs_browser
@pytest.mark.slow
def test_the_page_asks_counts_and_saves(chromium, run, tmp_path, capsys):
    output = copied(run, tmp_path / "run")
    report.main([output, "--pairs", "12"])
    test = reading_test.load(output, read_manifest(output))
    better = ["left", "right", "neither"] * 2 + ["left"]
    with opened(chromium, tmp_path / "run" / "report.html") as page:
        box = page.locator("#reading")
        assert box.locator("pre").all_text_contents() == [
            test.pairs["left_text"][0].as_py(),
            test.pairs["right_text"][0].as_py(),
        ]
        assert "score" not in box.inner_text().lower()
        page.focus("#stop")
        page.keyboard.press("ArrowRight")  # the slider's key
        assert "Pair 1 of 12" in box.inner_text()
        box.get_by_text("First is better").click()
        for key in ("2", "ArrowDown", "1", "ArrowLeft", "Backspace", "ArrowRight", "0"):
            page.keyboard.press(key)
        assert "Pair 7 of 12" in box.inner_text()
        assert box.locator("pre").first.text_content() == test.pairs["left_text"][6].as_py()
        page.keyboard.press("ArrowLeft")
        box.get_by_text("Stop and show the result").click()
        page.keyboard.press("ArrowLeft")  # nobody is blind any more
        shown = [row.split("\t") for row in box.locator("tbody tr").all_inner_texts()]
        box.get_by_label("Your name").fill("Ada <b>1 2</b>")
        with page.expect_download() as download:
            box.get_by_text("Save the answers").click()
        file = tmp_path / download.value.suggested_filename
        download.value.save_as(file)
        assert page.evaluate("window.hacked") is None
        assert page.locator("main img").count() == 0
    assert json.loads(file.read_text()) == answers_to(test, better, "Ada <b>1 2</b>")
    report.main([output, "--reading", str(file)])
    capsys.readouterr()
    answers = reading_test.load(output, read_manifest(output)).answers
    rows = reading_test.agreement_rows({}, {"reading": answers})
    assert shown == [[str(value) for value in list(row.values())[1:]] for row in rows]
    with opened(chromium, tmp_path / "run" / "report.html", width=390) as page:
        assert "Ada <b>1 2</b>" in page.inner_text("#panel-reading")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
