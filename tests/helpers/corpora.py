"""Small inputs and a classifier for tests of the whole pipeline."""

import gzip
import hashlib
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from quality_classifier import artifact
from quality_classifier import fingerprints as keys
from quality_classifier.features.hashed_features import FeatureConfig
from quality_classifier.kinds.calibration import Calibration
from quality_classifier.kinds.linear import HashedLinear
from winnow import run_log

_WORDS = [
    "river",
    "treaty",
    "engine",
    "login",
    "free",
    "now",
    "漢字",
    "naïve",
    "été",
    "don't",
    "42",
]

ROOT = Path(__file__).resolve().parents[2]


def documents(n: int, seed: int = 0, source: str = "web") -> list[dict[str, str]]:
    """``n`` documents of 1 to 80 words each; some without an id, some without a URL."""
    rng = random.Random(f"{source}-{seed}")
    out = []
    for i in range(n):
        words = rng.choices(_WORDS, k=rng.randrange(1, 80))
        document = {"text": " ".join(words).replace(" now ", ".\n")}
        if i % 5:
            document["id"] = f"{source}-{seed}-{i}"
        if i % 7:
            document["url"] = f"https://www.{rng.choice('abc')}.example/{i}"
        out.append(document)
    return out


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> None:
    """One JSON object per line; compressed if the name ends in .gz."""
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def write_classifier(folder: Path, seed: int = 0, trained_on: Sequence[str] = ()) -> HashedLinear:
    """A hashed-linear classifier with random weights: scores all over (0, 1)."""
    config = FeatureConfig()
    weights = np.random.default_rng(seed).normal(0, 2, config.buckets).astype(np.float32)
    model = HashedLinear(config, weights, -0.5)
    texts = pa.chunked_array([pa.array(trained_on, pa.large_string())])
    files = {keys.NAME: keys.dumps(keys.of_texts(texts))}
    artifact.save(folder, model, Calibration.identity(), {}, {}, files)
    return model


def fingerprints(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file under a folder but the log of a run, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != run_log.NAME
    }


def copy_kernels(site: Path) -> None:
    """Give our packages in ``site`` the kernels that numba has compiled for those here."""
    for package in ("winnow", "pipeline", "quality_classifier", "model"):
        for kept in (ROOT / package).rglob("__pycache__/*.nb[ic]"):
            target = site / kept.relative_to(ROOT)
            target.parent.mkdir(exist_ok=True)
            shutil.copy(kept, target)
