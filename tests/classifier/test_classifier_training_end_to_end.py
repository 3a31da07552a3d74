"""``train.py`` from files to folder: same bytes for same input, clear errors, an honest card."""

import gzip
import json
import random
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from sklearn.metrics import roc_auc_score

from pipeline.core.identity import content_hashes
from quality_classifier import artifact
from quality_classifier.scoring import load_classifier
from quality_classifier.training import classes as training
from quality_classifier.training import shared

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

COMMON = "the a of and to in it was for on with as by at from this that which"
WORDS = {
    "books": "castle whisper garden letter evening carriage sister meadow candle voyage",
    "wiki": "century population river province species founded district railway census",
    "forum": "lol click thread reply login posted password admin quote edited",
    "spam": "free winner offer cash viagra unsubscribe guarantee discount order now",
}
CURATED, RAW = ("books", "wiki"), ("forum", "spam")


def sentences(source, n, seed=0):
    """Texts of one source's words among common ones, some of another source's."""
    draw = random.Random(f"{source} {seed}")
    others = sorted(set(WORDS) - {source})
    for _ in range(n):
        theirs = WORDS[source if draw.random() < 0.9 else draw.choice(others)]
        yield " ".join(draw.choices((COMMON + " " + theirs).split(), k=draw.randint(8, 60)))


def write_lines(path, documents):
    with gzip.open(path, "wt") as file:
        for document in documents:
            file.write(json.dumps(document) + "\n")


@pytest.fixture(scope="module", autouse=True)
def fixed_code_version():
    """The commit is part of a card, and may change while these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "code_version", lambda: "1.2.3")
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for source in WORDS:
        documents = [
            {"text": text, "url": f"https://{source}{i % 3}.org/{i}", "language": "en"}
            for i, text in enumerate(sentences(source, 200))
        ]
        write_lines(folder / f"{source}.jsonl.gz", documents)
    return folder


def settings_of(*overrides):
    with initialize_config_dir(str(ROOT / "conf" / "classifier"), version_base=None):
        return OmegaConf.to_object(compose("train", [*overrides]))


def run(corpus, output, *overrides, positive=CURATED, negative=RAW):
    globs = {
        name: ",".join(f"{corpus}/{source}.jsonl.gz" for source in sources)
        for name, sources in [("positive", positive), ("negative", negative)]
    }
    small = ["hashed_linear.log2_buckets=18", "hashed_linear.c=[1,10]", "bootstrap=20"]
    overrides = [f"{name}=[{paths}]" for name, paths in globs.items()] + small + [*overrides]
    training.train(settings_of(*overrides, f"output={output}"))
    return contents(output)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "classifier"
    run(corpus, folder)
    return folder


def test_same_input_and_seed_give_the_same_bytes_whatever_the_order_of_files(
    corpus, trained, tmp_path
):
    again = run(corpus, tmp_path / "again", positive=CURATED[::-1], negative=RAW[::-1])
    assert again == contents(trained)
    assert set(again) >= {"card.md", "card.json", "classifier.json", "weights.safetensors"}
    assert sum(name.endswith(".png") for name in again) == 5


def test_another_seed_moves_intervals_but_not_splits_or_weights(corpus, trained, tmp_path):
    other, one = run(corpus, tmp_path / "other", "seed=1"), contents(trained)
    cards = [json.loads(files["card.json"]) for files in (one, other)]
    auc = [card["metrics"][0]["log_loss"] for card in cards]
    assert auc[0]["value"] == auc[1]["value"]
    assert auc[0] != auc[1]
    assert one["weights.safetensors"] == other["weights.safetensors"]
    assert cards[0]["documents"] == cards[1]["documents"]


def test_the_card_tells_the_truth_about_the_classifier_that_is_served(corpus, trained):
    """Splits, scores and figures anew, from the files and the loaded folder alone."""
    import xxhash

    classifier = load_classifier(str(trained))
    held_out = {
        source: [
            text
            for text in sentences(source, 200)
            if xxhash.xxh3_64_intdigest(text.encode(), 0x73706C6974) < 0.1 * 2**64
        ]
        for source in WORDS
    }
    card = json.loads((trained / "card.json").read_text())
    learned = [text for s in WORDS for text in sentences(s, 200) if text not in held_out[s]]
    assert classifier.trained_on(content_hashes(pa.array(learned))) == len(learned)
    for texts in held_out.values():
        assert classifier.trained_on(content_hashes(pa.array(texts))) == 0
    counts = {row["source"]: row["test"] for row in card["documents"]}
    assert counts == {source: len(texts) for source, texts in held_out.items()}
    score = {
        source: classifier.score(pa.array(texts)).astype(np.float64)
        for source, texts in held_out.items()
    }
    by_class = [np.concatenate([score[s] for s in sources]) for sources in (CURATED, RAW)]
    for row in card["yield"]:
        of = by_class[row["class"] == "negative"]
        assert row["documents"] == pytest.approx(((2 - of) ** -row["alpha"]).mean())
    weights = [
        np.concatenate([np.full(len(score[s]), 1 / len(score[s])) for s in sources])
        for sources in (CURATED, RAW)
    ]
    auc = roc_auc_score(
        np.repeat([1, 0], [len(scores) for scores in by_class]),
        np.concatenate(by_class),
        sample_weight=np.concatenate(weights),
    )
    assert card["metrics"][0]["roc_auc"]["value"] == pytest.approx(auc)
    assert auc > 0.8
    negatives = card["audit"]["negative"]
    kept = {(row["value"], row["rule"]): row["rate"] for row in negatives}
    assert kept["spam", "threshold"] == pytest.approx((score["spam"] >= 0.5).mean())
    assert classifier.card["metrics"][0]["roc_auc"] == round(auc, 4)
    at_nine = next(row for row in classifier.card["expected_yield"] if row["alpha"] == 9)
    kept = ((2 - by_class[0]) ** -9).mean()
    assert at_nine["positive_documents"] == pytest.approx(kept, abs=1e-4)
    text = (trained / "card.md").read_text()
    assert f"{auc:.3f}" in text
    assert "Known limits" in text


def test_figures_on_an_unseen_source_are_those_of_a_classifier_that_never_saw_it(corpus, tmp_path):
    files = run(corpus, tmp_path / "out", "unseen_sources=2", "hashed_linear.c=[1]")
    rows = {row["source"]: row for row in json.loads(files["card.json"])["unseen"]}
    assert set(rows) == set(WORDS)
    run(corpus, tmp_path / "without", "hashed_linear.c=[1]", positive=["wiki"])
    classifier = load_classifier(str(tmp_path / "without"))
    score = classifier.score(pa.array(sentences("books", 200))).astype(np.float64)
    assert rows["books"]["documents"] == 200
    assert rows["books"]["mean_score"] == pytest.approx(score.mean(), abs=1e-6)
    assert rows["books"]["keep_rate"] == pytest.approx(((2 - score) ** -9).mean(), abs=1e-6)
    assert b"sources that it has not seen" in files["card.md"]


def test_swapped_classes_mirror_the_scores(corpus, trained, tmp_path):
    run(corpus, tmp_path / "swapped", positive=RAW, negative=CURATED)
    text = pa.array([t for source in WORDS for t in sentences(source, 10, seed=1)])
    one = load_classifier(str(trained)).score(text)
    other = load_classifier(str(tmp_path / "swapped")).score(text)
    assert other == pytest.approx(1 - one, abs=0.01)


def test_duplicates_are_counted_and_have_no_part(corpus, trained, tmp_path):
    """A file of texts that are in both classes, and one that repeats another."""
    for name, source in [("twin", "books"), ("contested", "spam")]:
        texts = [*sentences(source, 200)]
        write_lines(tmp_path / f"{name}.jsonl.gz", [{"text": text} for text in texts])
    again = [{"text": text} for text in sentences("wiki", 200)]
    write_lines(tmp_path / "books.jsonl.gz", again + [{"text": t} for t in sentences("books", 200)])
    one = tmp_path / "one"
    overrides = [
        f"positive={{books: '{corpus}/books.jsonl.gz', wiki: '{corpus}/wiki.jsonl.gz', "
        f"zwin: '{tmp_path}/twin.jsonl.gz'}}",
        f"negative={{forum: '{corpus}/forum.jsonl.gz', spam: '{corpus}/spam.jsonl.gz'}}",
        "hashed_linear.log2_buckets=18",
        "hashed_linear.c=[1,10]",
        "bootstrap=20",
    ]
    training.train(settings_of(*overrides, f"output={one}"))
    rows = {row["source"]: row for row in json.loads((one / "card.json").read_text())["documents"]}
    assert rows["zwin"]["repeated"] == 200
    assert rows["zwin"]["train"] == 0
    assert (one / "weights.safetensors").read_bytes() == (
        trained / "weights.safetensors"
    ).read_bytes()
    overrides[0] = overrides[0].replace("twin.jsonl", "contested.jsonl")
    overrides[1] = f"negative={{spam: '{corpus}/spam.jsonl.gz'}}"
    with pytest.raises(ValueError, match="too few negative documents: 0 without duplicates"):
        training.train(settings_of(*overrides, f"output={tmp_path / 'two'}"))


def test_fields_of_each_source_can_be_named(corpus, trained, tmp_path, capsys):
    parquet = {"body": [*sentences("books", 200)], "lang": ["xx"] * 200, "topic": ["a", "b"] * 100}
    pq.write_table(pa.table(parquet), tmp_path / "other.parquet")
    overrides = [
        f"positive={{books: {{glob: ['{tmp_path}/*.parquet'], text: body, language: lang}}, "
        f"wiki: '{corpus}/wiki.jsonl.gz'}}",
        f"negative=['{corpus}/forum.jsonl.gz', '{corpus}/spam.jsonl.gz']",
        "metadata=[topic]",
        "hashed_linear.log2_buckets=18",
        "hashed_linear.c=[1,10]",
        "bootstrap=20",
    ]
    training.train(settings_of(*overrides, f"output={tmp_path / 'out'}"))
    said = capsys.readouterr().err
    assert "warning: 200 of 200 documents of positive wiki have nothing in 'topic'" in said
    assert (tmp_path / "out" / "weights.safetensors").read_bytes() == (
        trained / "weights.safetensors"
    ).read_bytes()
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    values = {(row["column"], row["value"]) for row in card["audit"]["positive"]}
    assert values >= {("language", "xx"), ("language", "en"), ("topic", "(none)")}


def test_fasttext_is_repeatable_on_one_thread(corpus, tmp_path):
    small = ["kind=fasttext", "fasttext.dim=4", "fasttext.buckets=5000", "fasttext.epochs=20"]
    one = run(corpus, tmp_path / "one", *small)
    assert one == run(corpus, tmp_path / "two", *small)
    card = json.loads(one["card.json"])
    assert card["metrics"][0]["roc_auc"]["value"] > 0.8
    assert b"fastText on one thread" in one["card.md"]
    assert artifact.load(tmp_path / "one").model.kind == "fasttext"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["kind=bert"], "unknown kind 'bert'"),
        (["calibration=none"], "unknown calibration"),
        (["test_share=0.95"], "sum below 1"),
        (["source_weight_limit=0.5"], "source_weight_limit"),
        (["hashed_linear.c=[]"], "hashed_linear.c"),
        (["positive=[{}/none*.gz]"], "nothing matches"),
        (["positive=[]"], "empty list"),
        (["positive=3"], "positive must be"),
        (["positive={{books: {{glob: '{}/books.jsonl.gz', body: text}}}}"], "unknown fields"),
        (["negative=[{}/books.jsonl.gz]"], "in two sources"),
        (["+field.body=text"], "unknown fields ['body']"),
        (["hashed_linear.log2_buckets=30"], "log2_buckets"),
        (["field.text=body"], "too few positive documents: 0"),
        (["field.id=uid"], "no record of positive books and negative spam has anything in 'uid'"),
        (["metadata=[author]"], "has anything in 'author'"),
        (
            ["negative={{spam: {{glob: '{}/spam.jsonl.gz', url: link}}}}"],
            "no record of negative spam has anything in 'link'",
        ),
    ],
)
def test_what_is_wrong_is_said(corpus, tmp_path, overrides, message):
    given = {
        "positive": f"[{corpus}/books.jsonl.gz]",
        "negative": f"[{corpus}/spam.jsonl.gz]",
        "output": str(tmp_path / "out"),
    }
    given |= dict(override.format(corpus).split("=", 1) for override in overrides)
    with pytest.raises(ValueError, match=r".") as error:
        training.train(settings_of(*(f"{name}={value}" for name, value in given.items())))
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_too_few_documents_and_an_output_that_exists_are_refused(corpus, trained, tmp_path):
    write_lines(tmp_path / "few.jsonl.gz", [{"text": f"text {i}"} for i in range(30)])
    inputs = [f"positive=[{tmp_path}/few.jsonl.gz]", f"negative=[{corpus}/spam.jsonl.gz]"]
    with pytest.raises(ValueError, match="too few positive documents: 30 without duplicates"):
        training.train(settings_of(*inputs, f"output={tmp_path / 'out'}"))
    before = contents(trained)
    with pytest.raises(ValueError, match="exists already"):
        training.train(settings_of(*inputs, f"output={trained}"))
    assert contents(trained) == before


def test_unreadable_records_are_counted(corpus, tmp_path):
    with gzip.open(tmp_path / "books.jsonl.gz", "wt") as file:
        for text in sentences("books", 200):
            file.write(json.dumps({"text": text}) + "\n")
        file.write('{"text": broken\n{"text": 5}\n')
    (tmp_path / "wiki.jsonl.gz").write_bytes((corpus / "wiki.jsonl.gz").read_bytes())
    for source in RAW:
        (tmp_path / f"{source}.jsonl.gz").write_bytes((corpus / f"{source}.jsonl.gz").read_bytes())
    files = run(tmp_path, tmp_path / "out")
    found = json.loads(files["card.json"])["unreadable"]
    assert {(row["source"], row["reason"], row["records"]) for row in found} == {
        ("books", "bad_json", 1),
        ("books", "wrong_type", 1),
    }
    assert b"1 \xc3\x97 bad_json in positive books" in files["card.md"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["seed=one"], 2, "could not be converted to Integer"),
        (["sede=1"], 2, "error: there is no setting sede: did you mean seed?"),
        (
            ["output=o"],
            2,
            "nothing to learn from: give positive=GLOB and negative=GLOB, or labels=",
        ),
        (["positive=[x.gz]", "negative=[y.gz]", "output=o"], 1, "error: nothing matches 'x.gz'"),
    ],
)
def test_the_command_line_says_what_is_wrong_without_a_traceback(
    quick_python, tmp_path, arguments, code, message
):
    script = ROOT / "quality_classifier" / "train.py"
    done = subprocess.run(
        [quick_python, script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())  # Hydra leaves no folder of its own
