"""Scorers, fastText, the artifact folder and load_classifier."""

import json
import random
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from quality_classifier import artifact
from quality_classifier.features.hashed_features import FeatureConfig, hashed_features
from quality_classifier.kinds import fasttext_model
from quality_classifier.kinds.calibration import Calibration
from quality_classifier.kinds.fasttext_model import (
    CURATED,
    FastTextModel,
    FastTextSettings,
    one_line,
    train_fasttext,
)
from quality_classifier.kinds.linear import HashedLinear
from quality_classifier.scoring import load_classifier

CONFIG = FeatureConfig(log2_buckets=18)
TINY = FastTextSettings(dim=8, buckets=5000, epochs=20, learning_rate=0.5)
GOOD = [
    "the",
    "of",
    "theory",
    "evidence",
    "history",
    "measured",
    "river",
    "because",
    "century",
    "described",
    "mountain",
]
BAD = [
    "click",
    "buy",
    "cheap",
    "free",
    "now",
    "!!!",
    "discount",
    "login",
    "subscribe",
    "winner",
    "casino",
    "pills",
]
COMMON = ["a", "and", "is", "was", "to", "in", "for", "it", "that", "on", "as", "with"]


def documents(vocabulary: list[str], count: int, seed: int) -> pa.Array:
    draw = random.Random(seed)
    sizes = [draw.randint(8, 60) for _ in range(count)]
    return pa.array([" ".join(draw.choices(vocabulary + COMMON * 2, k=n)) for n in sizes])


@pytest.fixture(scope="module")
def linear() -> HashedLinear:
    text = pa.concat_arrays([documents(GOOD, 200, 0), documents(BAD, 200, 1)])
    fit = LogisticRegression(C=10).fit(hashed_features(text, CONFIG), [1] * 200 + [0] * 200)
    return HashedLinear(CONFIG, fit.coef_[0].astype(np.float32), float(fit.intercept_[0]))


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> FastTextModel:
    output = tmp_path_factory.mktemp("fasttext") / "model.bin"
    return train_fasttext(documents(GOOD, 200, 0), documents(BAD, 200, 1), output, TINY, 0)


def save(folder: Path, model: artifact.Model) -> str:
    calibration = Calibration(slope=0.8, intercept=-0.1)
    files = {"card.md": b"# Card\n", "figures/roc.svg": b"<svg/>"}
    return artifact.save(folder, model, calibration, {"seed": 0}, {"roc_auc": 0.97}, files)


@pytest.fixture(params=["linear", "fast"])
def model(request: pytest.FixtureRequest) -> artifact.Model:
    return request.getfixturevalue(request.param)


def test_saved_and_loaded_scores_are_the_same(model: artifact.Model, tmp_path: Path) -> None:
    fingerprint = save(tmp_path / "a" / "classifier", model)
    classifier = load_classifier(str(tmp_path / "a" / "classifier"))
    text = pa.concat_arrays([documents(GOOD, 5, 7), documents(BAD, 5, 8), pa.array(["", "\0\n"])])
    expected = 1 / (1 + np.exp(-(0.8 * model.margins(text) - 0.1)))
    scores = classifier.score(text)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    np.testing.assert_array_equal(classifier.score(text.cast(pa.large_string())), scores)
    np.testing.assert_array_equal(classifier.score(text.slice(3, 6)), scores[3:9])
    assert classifier.score(text.slice(0, 0)).shape == (0,)
    assert classifier.fingerprint == fingerprint
    assert classifier.card == {"roc_auc": 0.97}
    assert (tmp_path / "a" / "classifier" / "figures" / "roc.svg").read_bytes() == b"<svg/>"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["classifier"]


def test_both_kinds_tell_the_classes_apart(model: artifact.Model) -> None:
    text = pa.concat_arrays([documents(GOOD, 100, 2), documents(BAD, 100, 3)])
    assert roc_auc_score([1] * 100 + [0] * 100, model.margins(text)) > 0.99


def test_the_same_classifier_has_the_same_bytes(linear: HashedLinear, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / name, linear)
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_the_fingerprint_follows_what_changes_a_score(linear: HashedLinear, tmp_path: Path) -> None:
    weights = linear.weights.copy()
    weights[5] += 1
    unigrams = FeatureConfig(log2_buckets=18, max_ngram=1)
    plain = Calibration.identity()
    changed = [
        (linear, plain),
        (linear, Calibration(slope=2.0)),
        (HashedLinear(CONFIG, linear.weights, linear.bias + 1), plain),
        (HashedLinear(CONFIG, weights, linear.bias), plain),
        (HashedLinear(unigrams, linear.weights, linear.bias), plain),
    ]
    fingerprints = {
        artifact.save(tmp_path / str(i), model, calibration, {}, {}, {})
        for i, (model, calibration) in enumerate(changed)
    }
    assert len(fingerprints) == len(changed)
    same = artifact.save(tmp_path / "same", linear, plain, {"day": 2}, {"roc_auc": 1}, {"x": b""})
    assert same in fingerprints


def test_threads_share_a_classifier(linear: HashedLinear, tmp_path: Path) -> None:
    save(tmp_path / "c", linear)
    classifier = load_classifier(str(tmp_path / "c"))
    text = documents(GOOD + BAD, 300, 5)
    expected = classifier.score(text)
    found: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: found.extend(classifier.score(text) for _ in range(20)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    for scores in found:
        np.testing.assert_array_equal(scores, expected)


def test_save_replaces_nothing(linear: HashedLinear, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    save(tmp_path / "c", linear)
    before = (tmp_path / "c" / "classifier.json").read_bytes()
    with pytest.raises(ValueError, match="exists already"):
        save(tmp_path / "c", linear)
    assert (tmp_path / "c" / "classifier.json").read_bytes() == before


def test_a_failed_save_leaves_nothing(linear: HashedLinear, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        artifact.save(tmp_path / "c", linear, Calibration.identity(), {}, {"x": float("nan")}, {})
    assert list(tmp_path.iterdir()) == []


def edit(folder: Path, **values: object) -> None:
    path = folder / "classifier.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def reweigh(folder: Path, **tensors: np.ndarray) -> None:
    """Other weights under a checksum that fits them: only what they hold can be refused."""
    path = folder / "weights.safetensors"
    safetensors.numpy.save_file(tensors, path)
    edit(folder, weights_sha256=artifact._checksum(path))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "classifier.json").unlink(), r"classifier\.json is missing"),
        (lambda f: (f / "weights.safetensors").unlink(), r"weights\.safetensors is missing"),
        (lambda f: (f / "classifier.json").write_text("{"), r"classifier\.json: Expecting"),
        (lambda f: (f / "classifier.json").write_text("[]"), r"classifier\.json"),
        (lambda f: (f / "classifier.json").write_bytes(b"\xff\xfe"), r"classifier\.json: .*utf-8"),
        (lambda f: (f / "classifier.json").write_text('{"format": 1}'), "'kind' is missing"),
        (lambda f: edit(f, format=2), "format 2"),
        (lambda f: edit(f, kind="pickle"), "unknown kind 'pickle'"),
        (lambda f: edit(f, features={"log2_buckets": 20}), "1048576 buckets"),
        (lambda f: edit(f, features={"log2_buckets": 99}), "log2_buckets is 18 to 22"),
        (lambda f: edit(f, features={"log2_buckets": 18, "normaliser": 9}), "version 9"),
        (lambda f: edit(f, features={"colour": 1}), "colour"),
        (lambda f: edit(f, calibration={"method": "magic"}), "magic"),
        (
            lambda f: edit(f, calibration={"method": "sigmoid", "slope": 2, "intercept": 0}),
            "edited",
        ),
        (lambda f: (f / "weights.safetensors").write_bytes(b"x" * 100), "checksum"),
        (lambda f: reweigh(f, weights=np.zeros(9, np.float32), bias=np.zeros(1)), "262144 buckets"),
        (lambda f: reweigh(f, weights=np.zeros(2**18), bias=np.zeros(1)), "float64"),
        (lambda f: reweigh(f, weights=np.full(2**18, np.nan, np.float32), bias=np.ones(1)), "NaN"),
        (lambda f: reweigh(f, weights=np.zeros(2**18, np.float32), bias=np.ones(2)), "bias|size"),
        (lambda f: reweigh(f, weights=np.zeros(2**18, np.float32)), "bias"),
    ],
)
def test_a_damaged_folder_is_refused(
    damage: object, message: str, linear: HashedLinear, tmp_path: Path
) -> None:
    save(tmp_path / "c", linear)
    damage(tmp_path / "c")
    with pytest.raises(ValueError, match=message) as caught:
        load_classifier(str(tmp_path / "c"))
    assert str(tmp_path / "c") in str(caught.value)


def test_paths_and_labels_that_lead_nowhere(
    linear: HashedLinear, fast: FastTextModel, tmp_path: Path
) -> None:
    save(tmp_path / "c", linear)
    model = str(fast.path)
    for path, label, message in [
        (str(tmp_path / "none"), None, "no classifier"),
        ("ftp://bucket/classifier", None, "not known"),
        (str(tmp_path), None, "missing"),
        (str(tmp_path / "c"), "__label__hq", "leave out"),
        (model, None, "__label__curated, __label__other|__label__other, __label__curated"),
        (model, "__label__hq", "no label '__label__hq'"),
        (str(tmp_path / "c" / "card.md"), "__label__hq", "not a fastText model"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_classifier(path, label)


def test_a_users_model_by_label(fast: FastTextModel) -> None:
    text = documents(GOOD + BAD, 20, 11)
    curated = load_classifier(str(fast.path), CURATED)
    other = load_classifier(str(fast.path), fasttext_model.OTHER)
    np.testing.assert_allclose(curated.score(text) + other.score(text), 1, atol=3e-5)
    assert curated.fingerprint != other.fingerprint
    assert curated.card["label"] == CURATED


def softmax_of(fast: FastTextModel, line: str) -> float:
    """fastText's forward pass from its matrices, for a line of known words without bigrams."""
    model = fast._library
    rows = [model.get_input_vector(model.get_word_id(word)) for word in [*line.split(), "</s>"]]
    logits = model.get_output_matrix() @ np.mean(rows, axis=0)
    share = np.exp(logits - logits.max())
    return float(share[model.get_labels().index(CURATED)] / share.sum())


def test_probabilities_equal_the_forward_pass(tmp_path: Path) -> None:
    settings = FastTextSettings(dim=8, word_ngrams=1, epochs=10)
    arrays = documents(GOOD, 100, 0), documents(BAD, 100, 1)
    fast = train_fasttext(*arrays, tmp_path / "m.bin", settings, 0)
    lines = ["evidence of the river", "cheap pills", "the casino described history", "winner"]
    for batch in (lines, lines[:1], lines[:2], lines[1:]):
        scores = load_classifier(str(fast.path), CURATED).score(pa.array(batch))
        np.testing.assert_allclose(scores, [softmax_of(fast, x) for x in batch], atol=3e-5)


def test_white_space_of_any_kind_is_a_space(fast: FastTextModel) -> None:
    words = ["evidence", "casino", "of", "history", "pills"]
    expected = fast.margins(pa.array([" ".join(words)]))
    for space in (
        "\n",
        "\r\n",
        "\t",
        "\0",
        "\v",
        "\f",
        "\x85",
        "\u00a0",
        "\u2028",
        "\u3000",
        "\n\n",
    ):
        np.testing.assert_array_equal(fast.margins(pa.array([space.join(words)])), expected)


def test_one_line_leaves_the_rest_alone() -> None:
    text = pa.array(["Skipped", "Ünïcode, Case\tand 漢字!", "a </s> b", "x __label__hq y", ""])
    expected = ["Ünïcode, Case and 漢字!", "a < /s> b", "x _label_hq y", ""]
    assert one_line(text.slice(1)).to_pylist() == expected


def test_what_follows_fasttexts_own_marks_counts(fast: FastTextModel) -> None:
    marked = pa.array(["evidence </s> casino pills cheap", "evidence </s>"])
    assert fast.margins(marked)[0] < fast.margins(marked)[1] - 1


def test_training_is_repeatable(tmp_path: Path, fast: FastTextModel) -> None:
    arrays = documents(GOOD, 200, 0), documents(BAD, 200, 1)
    same = train_fasttext(*arrays, tmp_path / "same.bin", TINY, 0)
    other = train_fasttext(*arrays, tmp_path / "other.bin", TINY, 1)
    assert same.path.read_bytes() == fast.path.read_bytes()
    assert other.path.read_bytes() != fast.path.read_bytes()
    free = train_fasttext(*arrays, tmp_path / "free.bin", replace(TINY, repeatable=False), 0)
    assert free.margins(documents(GOOD, 1, 9))[0] > 0


def test_labels_inside_training_text_are_text(tmp_path: Path) -> None:
    text = pa.array(["__label__spam x y", "__label__other z"])
    model = train_fasttext(text, documents(BAD, 20, 0), tmp_path / "m.bin", TINY, 0)
    assert sorted(model._library.get_labels()) == [CURATED, fasttext_model.OTHER]


def test_training_that_cannot_work_says_why(tmp_path: Path) -> None:
    settings = FastTextSettings(dim=8, buckets=5000, min_count=1000)
    with pytest.raises(ValueError, match="could not train"):
        train_fasttext(pa.array([""]), pa.array([""]), tmp_path / "m.bin", settings, 0)


@pytest.mark.parametrize("keep", [0, 50, 90, 1000, -1, -400])
def test_a_model_file_that_is_cut_off(keep: int, fast: FastTextModel, tmp_path: Path) -> None:
    (tmp_path / "cut.bin").write_bytes(fast.path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"cut\.bin"):
        FastTextModel(tmp_path / "cut.bin", CURATED)


class BrokenBuild:
    """A build with a known fault: the answer for exactly two texts is that of the first twice."""

    def __init__(self, sound: object) -> None:
        self.f = sound.f
        self._sound = sound

    def predict(self, texts: list[str], k: int) -> tuple[list, list]:
        names, probabilities = self._sound.predict(texts, k=k)
        if len(texts) == 2:
            return [names[0]] * 2, [probabilities[0]] * 2
        return names, probabilities


def test_the_probe_sees_a_broken_build(fast: FastTextModel) -> None:
    labels = fast._library.get_labels()
    fasttext_model._probe(fast._library, labels, fast.path)
    with pytest.raises(ValueError, match="predicts wrongly"):
        fasttext_model._probe(BrokenBuild(fast._library), labels, fast.path)


def test_shuffled_words_score_alike(linear: HashedLinear) -> None:
    """A known limit: without word order under unigrams, nearly without it under bigrams."""
    unigrams = HashedLinear(FeatureConfig(18, max_ngram=1), linear.weights, linear.bias)
    draw = random.Random(0)
    originals = documents(GOOD + BAD, 200, 13)
    shuffled = []
    for text in originals.to_pylist():
        words = text.split()
        draw.shuffle(words)
        shuffled.append(" ".join(words))
    np.testing.assert_allclose(
        unigrams.margins(pa.array(shuffled)), unigrams.margins(originals), atol=1e-12
    )
    pairs = linear.margins(pa.array(shuffled)), linear.margins(originals)
    assert not np.allclose(*pairs)
    assert np.corrcoef(*pairs)[0, 1] > 0.9
