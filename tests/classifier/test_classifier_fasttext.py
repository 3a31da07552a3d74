"""Scores computed from a fastText model's file, against fastText's own predict and float64."""

import itertools
import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest

from quality_classifier.kinds import fasttext_file
from quality_classifier.kinds.fasttext_model import FastTextModel, one_line

WORDS = [
    *("the", "river", "of", "history", "Evidence,", "cheap", "pills", "naïve", "été", "漢字"),
    *("漢", "don't", "42", "a", "x!", "ñandú"),
]
LABELS = ["__label__good", "__label__bad", "__label__ugly"]
SOFTMAX = {
    f"{n}-{least}-{most}": {"wordNgrams": n, "minn": least, "maxn": most}
    for n, (least, most) in itertools.product((1, 2, 3), ((0, 0), (1, 3), (3, 3)))
}
OTHERS = {"hs": {"loss": "hs"}, "ova": {"loss": "ova"}, "ns": {"loss": "ns"}}

TRAIN = """
import fasttext, json, sys
kinds, folder = json.load(sys.stdin)
for name, options in kinds.items():
    bucket = 300 if options.get("wordNgrams", 1) > 1 or options.get("maxn", 0) else 0
    model = fasttext.train_supervised(
        f"{folder}/train.txt", **{"dim": 8, "epoch": 20, "lr": 1.0, "bucket": bucket, "thread": 1,
        "minCount": 3, "verbose": 0, **options}
    )
    model.save_model(f"{folder}/{name}.bin")
    if name == "2-0-0":
        model.quantize()
        model.save_model(f"{folder}/quantised.bin")
"""


def texts(n: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    known = [*WORDS, *(f"unknown{draw.randrange(99)}" for _ in range(5))]
    weights = [[1 + 9 * (place % 3 == kind) for place in range(len(known))] for kind in range(3)]
    return [
        " ".join(draw.choices(known, weights[i % 3], k=draw.randrange(1, 60))) for i in range(n)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of all kinds, trained in a process whose memory starts as zeros (see _TRAIN)."""
    place = tmp_path_factory.mktemp("fasttext")
    lines = [f"{LABELS[i % 3]} {line}\n" for i, line in enumerate(texts(90, 0))]
    (place / "train.txt").write_text("".join(lines), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-c", TRAIN],
        input=json.dumps([SOFTMAX | OTHERS, str(place)]),
        env=os.environ | {"MALLOC_PERTURB_": "255"},
        text=True,
        check=True,
    )
    return place


def predicted(path: Path, lines: list[str], label: str) -> np.ndarray:
    """The label's probability as fastText's predict gives it; 0 where it gives none."""
    named, shares = fasttext.load_model(str(path)).predict(lines, k=-1)
    rows = [dict(zip(*row, strict=True)) for row in zip(named, shares, strict=True)]
    return np.array([row.get(label, 0.0) for row in rows])


ODD = ["", " ", "a", "zzz", "naïve  zzz ", "x\0\ny\u3000z", "a </s> b", "__label__good x", "\u7fff"]


@pytest.mark.parametrize("name", SOFTMAX)
def test_scores_are_those_of_predict(folder: Path, name: str) -> None:
    path = folder / f"{name}.bin"
    text = pa.array([*texts(60, 1), *ODD])
    lines = one_line(text)
    for label in LABELS:
        model = FastTextModel(path, label)
        assert "_library" not in vars(model)  # fastText's own code was not even loaded
        assert model._table is not None
        expected = predicted(path, lines.to_pylist(), label)
        assert expected.max() - expected.min() > 0.1
        np.testing.assert_allclose(model._table.probabilities(lines), expected, atol=1e-6)
        clipped = expected.clip(1e-5, 1 - 1e-5)
        np.testing.assert_allclose(1 / (1 + np.exp(-model.margins(text))), clipped, atol=1e-6)
        np.testing.assert_array_equal(
            model.margins(text.cast(pa.large_string()).slice(3, 9)), model.margins(text)[3:12]
        )


@pytest.mark.parametrize("name", [*OTHERS, "quantised"])
def test_what_the_kernel_does_not_know_fasttext_scores(folder: Path, name: str) -> None:
    path = folder / f"{name}.bin"
    text = pa.array(texts(30, 2))
    model = FastTextModel(path, LABELS[0])
    assert model._table is None
    expected = predicted(path, one_line(text).to_pylist(), LABELS[0]).clip(1e-5, 1 - 1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-model.margins(text))), expected, atol=1e-6)


def test_a_long_text_is_nearer_to_float64_than_fasttext_is(folder: Path) -> None:
    path = folder / "1-0-0.bin"
    line = " ".join(texts(4000, 3))
    library = fasttext.load_model(str(path))
    ids = [library.get_word_id(word) for word in [*line.split(), "</s>"]]
    mean = library.get_input_matrix()[[i for i in ids if i >= 0]].mean(0, np.float64)
    logits = library.get_output_matrix().astype(np.float64) @ mean
    share = np.exp(logits - logits.max())
    exact = share[library.get_labels().index(LABELS[0])] / share.sum() + 1e-5
    table = FastTextModel(path, LABELS[0])._table
    assert table is not None
    ours = abs(table.probabilities(pa.array([line]))[0] - exact)
    assert ours < 1e-7
    assert ours <= abs(predicted(path, [line], LABELS[0])[0] - exact)


def test_damage_is_found(folder: Path, tmp_path: Path) -> None:
    content = (folder / "2-0-0.bin").read_bytes()
    file = fasttext_file.read(folder / "2-0-0.bin")
    assert file.input_at is not None
    words = content.index(WORDS[0].encode() + b"\0")
    for at, octets, message in [
        (file.input_at, struct.pack("<f", np.nan), "NaN or infinity"),
        (file.output_at, struct.pack("<f", np.inf), "NaN or infinity"),
        (file.input_at - 16, struct.pack("<q", file.rows + 1), "damaged"),
        (words + len(WORDS[0]) + 9, b"\1", "damaged"),
        (64, struct.pack("<i", 1 << 30), "damaged"),  # the number of entries
    ]:
        bad = tmp_path / "bad.bin"
        bad.write_bytes(content[:at] + octets + content[at + len(octets) :])
        with pytest.raises(ValueError, match=message):
            FastTextModel(bad, LABELS[0])
