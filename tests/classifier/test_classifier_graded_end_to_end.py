"""Labels and pairs in, a classifier with its card out: whole trainings on small made-up text."""

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from corpora import write_classifier
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from scipy.stats import spearmanr

from pipeline import decide, run
from quality_classifier import artifact
from quality_classifier.scoring import load_classifier
from quality_classifier.training import classes as training

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

COMMON = [*"abcdefghijklmnopqr"]
GOOD = ["theorem", "evidence", "therefore", "measured", "analysis", "history", "careful", "explain"]
BAD = ["lol", "click", "winner", "free", "offer", "login", "cash", "viagra"]


def text_of(grade, draw):
    """More good words with every grade, of 0 to 4."""
    words = draw.choices(COMMON, k=20)
    words += [draw.choice(GOOD if draw.random() < 0.1 + 0.2 * grade else BAD) for _ in range(12)]
    draw.shuffle(words)
    return " ".join(words)


@pytest.fixture(scope="module")
def records():
    """600 texts of five grades from two sources; every fourth is labelled twice."""
    draw = random.Random(0)
    rows = []
    for i in range(600):
        grade = i % 5
        row = {"text": text_of(grade, draw), "score": grade, "source": f"s{i % 2}"}
        rows.append(row)
        if i % 4 == 0:
            rows.append(row | {"score": min(4, max(0, grade + draw.choice([-1, 0, 1])))})
    return rows


def write(folder, rows, order):
    folder.mkdir()
    for source in ("s0", "s1"):
        own = [row for row in rows if row["source"] == source]
        lines = [json.dumps(row | {"source": None}) + "\n" for row in own[::order]]
        (folder / f"{source}.jsonl").write_text("".join(lines))


def settings_of(*overrides):
    small = ["hashed_linear.log2_buckets=18", "hashed_linear.c=[1,10]", "bootstrap=20"]
    with initialize_config_dir(str(ROOT / "conf" / "classifier"), version_base=None):
        return OmegaConf.to_object(compose("train", [*small, *overrides]))


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def trained(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graded")
    write(folder / "in", records, 1)
    training.train(
        settings_of(f"labels=[{folder}/in/*]", "target=score", f"output={folder / 'out'}")
    )
    return folder / "out"


def held_out(text):
    return xxhash.xxh3_64_intdigest(text.encode(), 0x73706C6974) < 0.1 * 2**64


def test_the_card_is_of_the_classifier_that_is_served_and_of_texts_held_out(records, trained):
    given = {}
    for row in records:
        if held_out(row["text"]):
            given.setdefault(row["text"], []).append(row["score"])
    label = np.array([np.mean(scores) for scores in given.values()])
    classifier = load_classifier(str(trained))
    score, expected = classifier.score_and_grade(pa.array(list(given)))
    assert (score == classifier.score(pa.array(list(given)))).all()
    card = json.loads((trained / "card.json").read_text())
    assert card["tested"] == len(given)
    assert card["metrics"]["spearman"]["value"] == pytest.approx(
        spearmanr(expected, label).statistic
    )
    assert card["metrics"]["mae"]["value"] == pytest.approx(np.abs(expected - label).mean())
    assert card["metrics"]["spearman"]["value"] > 0.6
    assert card["metrics"]["roc_auc"]["value"] > 0.85
    assert np.abs(score.mean() - (label >= 3).mean()) < 0.15
    assert np.sum(card["confusion"]) == len(given)
    assert card["noise"]["documents"] == sum(len(scores) > 1 for scores in given.values())
    assert {row["value"] for row in card["groups"]} >= {"s0", "s1"}
    size = np.median([len(text) for text in {row["text"] for row in records}])
    assert card["sizes"]["median"] == int(size)
    assert classifier.card["at_least"] == "3"
    for name in ("confusion", "reliability", "scores"):
        assert f"figures/{name}.png" in (trained / "card.md").read_text()


def test_files_in_another_order_give_the_same_bytes(records, trained, tmp_path):
    write(tmp_path / "in", records, -1)
    paths = f"[{tmp_path}/in/s1.jsonl,{tmp_path}/in/s0.jsonl]"
    training.train(settings_of(f"labels={paths}", "target=score", f"output={tmp_path / 'out'}"))
    one, other = contents(trained), contents(tmp_path / "out")
    about = json.loads(other.pop("classifier.json")), json.loads(one.pop("classifier.json"))
    assert one == other
    assert about[0]["fingerprint"] == about[1]["fingerprint"]


def test_an_edited_grade_is_noticed(trained, tmp_path):
    for name, content in contents(trained).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    about = json.loads((tmp_path / "classifier.json").read_text())
    about["grades"]["at_least"] = "2"
    (tmp_path / "classifier.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="fingerprint does not match"):
        artifact.load(tmp_path)


def test_fasttext_learns_named_grades(records, tmp_path):
    names = ["worst", "bad", "fair", "good", "best"]
    rows = [row | {"score": names[row["score"]]} for row in records]
    write(tmp_path / "in", rows, 1)
    training.train(
        settings_of(
            f"labels={tmp_path}/in/*",
            "target=score",
            f"grades=[{','.join(names)}]",
            "at_least=good",
            "kind=fasttext",
            "fasttext.dim=4",
            "fasttext.buckets=5000",
            "fasttext.epochs=40",
            f"output={tmp_path / 'out'}",
        )
    )
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["metrics"]["spearman"]["value"] > 0.6
    assert card["at_least"] == "good"


def test_pairs_train_and_are_held_out_by_what_they_share(records, tmp_path):
    draw = random.Random(1)
    rows = [
        {"better": text_of(4, draw), "worse": text_of(1, draw), "topic": f"t{i // 8}"}
        for i in range(400)
    ]
    same = {"better": "equal", "worse": "equal"}
    lines = [json.dumps(row) + "\n" for row in [*rows, same, {"better": "alone"}]]
    (tmp_path / "pairs.jsonl").write_text("".join(lines))
    overrides = [f"pairs={tmp_path}/pairs.jsonl", "group=topic"]
    training.train(settings_of(*overrides, f"output={tmp_path / 'out'}"))
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert (card["read"], card["incomplete"], card["equal"]) == (402, 1, 1)
    classifier = load_classifier(str(tmp_path / "out"))
    learned = [
        {classifier.trained_on(hashes_of(row[k])) for k in ("better", "worse")} for row in rows
    ]
    assert all(len(own) == 1 for own in learned)  # both texts of a pair, or none
    for i in range(0, 400, 8):  # and all pairs of a topic
        assert len(set.union(*learned[i : i + 8])) == 1
    tested = [row for row, own in zip(rows, learned, strict=True) if own == {0}]
    assert len(tested) == card["tested"]
    better, worse = (
        classifier.score(pa.array([row[k] for row in tested])) for k in ("better", "worse")
    )
    assert card["accuracy"]["value"] == pytest.approx((better > worse).mean())
    assert card["accuracy"]["value"] > 0.9


def hashes_of(text):
    from pipeline.core.identity import content_hashes

    return content_hashes(pa.array([text]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["labels={}/in/*"], "labels=GLOB and target=FIELD go together"),
        (["labels={}/in/*", "target=grade"], "has anything in 'grade': correct the name"),
        (["labels={}/in/*", "target=score", "at_least=7"], "set at_least to one of 1, 2, 3, 4"),
        (["labels={}/in/*", "target=score", "grades=[0,1,2,3]"], "score '4' is out of range"),
        (
            ["labels={}/in/*", "target=score", "grades=[0,1,2,3,4,5]"],
            "too few documents of grade 5: 0",
        ),
        (["labels={}/in/*", "target=text"], "given twice"),
        (["labels={}/in/*", "target=score", "pairs=x"], "more than one way to learn"),
        (["positive=x"], "negative missing"),
        (["positive=x", "negative=y", "group=z"], "group=FIELD is for labels and pairs"),
        (["labels={}/in/*", "target=score", "metadata=[group]"], "metadata can't have a field"),
        (["pairs={}/in/*"], "no record has both texts of a pair"),
        (["pairs={}/few"], "too few pairs: 1, of which"),
    ],
)
def test_what_is_wrong_is_said(records, tmp_path, overrides, message):
    write(tmp_path / "in", records, 1)
    (tmp_path / "few").write_text('{"better": "a", "worse": "b"}\n')
    overrides = [override.format(tmp_path) for override in overrides]
    with pytest.raises(ValueError, match=r".") as error:
        training.train(settings_of(*overrides, f"output={tmp_path / 'out'}"))
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_run_has_the_expected_grade_beside_the_score_and_decisions_keep_it(
    records, trained, tmp_path
):
    texts = list(dict.fromkeys(row["text"] for row in records))[:40]
    rows = [{"text": text, "id": str(i), "expected_grade": "x"} for i, text in enumerate(texts)]
    (tmp_path / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = [f"--source=web={tmp_path}/web.jsonl", "--filter=web", f"--classifier={trained}"]
    rule = ["--rule=threshold", "--threshold=0.5"]
    run.main([*source, *rule, "--direct_num_workers=1", f"--output={tmp_path}/run"])
    decide.main([f"--scored={tmp_path}/run", "--rule=all", f"--output={tmp_path}/again"])
    score, expected = load_classifier(str(trained)).score_and_grade(pa.array(texts))
    for output in ("run", "again"):
        (path,) = (tmp_path / output / "shards").iterdir()
        table = pa.ipc.open_file(path).read_all().sort_by("id")
        order = [int(i) for i in table["id"].to_pylist()]
        assert (table["expected_grade"].to_numpy() == expected[order]).all()
        assert (table["quality_score"].to_numpy() == score[order]).all()
        kept = np.ones(40, bool) if output == "again" else score[order] >= 0.5
        assert (table["kept"].to_numpy(zero_copy_only=False) == kept).all()
        card = (tmp_path / output / "README.md").read_text()
        assert "calibrated probability of grade 3 or more" in card
        assert "`expected_grade`" in card
    assert "grades" in (tmp_path / "run" / "report.html").read_text()
    with pytest.raises(ValueError, match="the classifier writes that column"):
        run.main([*source, *rule, "--metadata=expected_grade", f"--output={tmp_path}/no"])


def test_of_several_classifiers_each_with_grades_has_its_expected_grade(records, trained, tmp_path):
    texts = list(dict.fromkeys(row["text"] for row in records))[:40]
    rows = [{"text": text, "id": str(i), "expected_grade_edu": "x"} for i, text in enumerate(texts)]
    (tmp_path / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_classifier(tmp_path / "plain")
    flags = [f"--source=web={tmp_path}/web.jsonl", "--filter=web", "--direct_num_workers=1"]
    two = [f"--classifier=edu={trained}", f"--classifier=plain={tmp_path}/plain"]
    run.main([*flags, *two, "--combine=edu", "--rule=all", f"--output={tmp_path}/run"])
    decide.main([f"--scored={tmp_path}/run", "--combine=max", f"--output={tmp_path}/again"])
    score, expected = load_classifier(str(trained)).score_and_grade(pa.array(texts))
    for output in ("run", "again"):
        (path,) = (tmp_path / output / "shards").iterdir()
        table = pa.ipc.open_file(path).read_all()
        order = [int(i) for i in table["id"].to_pylist()]
        assert (table["expected_grade_edu"].to_numpy() == expected[order]).all()
        assert (table["score_edu"].to_numpy() == score[order]).all()
        grades = [name for name in table.schema.names if name.startswith("expected_grade")]
        assert grades == ["expected_grade_edu"]
        card = (tmp_path / output / "README.md").read_text()
        assert "| `expected_grade_edu` | float | its expected grade, of" in card
        assert "| `score_edu` | float | calibrated probability of grade 3 or more |" in card
    taken = [*flags, *two, "--metadata=expected_grade_edu", f"--output={tmp_path}/no"]
    with pytest.raises(ValueError, match="expected_grade_edu: the classifier writes that column"):
        run.main(taken)
