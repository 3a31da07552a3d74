"""The arms of a corpus, on disk or in a bucket: which documents each chooses, by name.

An arm belongs to the corpus whose fingerprint went into its own; what it may choose is
:func:`model.data.corpus.write_arm`'s to check.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from winnow.filesystem import files, storage

BoolArray = npt.NDArray[np.bool_]
Choice = BoolArray | npt.NDArray[np.int32]
"""Which documents, or how often each is read in an epoch: [documents]."""

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.=-]*$")


@dataclass(frozen=True)
class Arm:
    """A named choice of documents: bool [documents], and what ``arms/<name>.json`` says.

    ``copies`` is how often each is read in an epoch, int32 [documents]; None: those chosen, once.
    """

    name: str
    mask: BoolArray
    about: Mapping[str, Any]
    copies: npt.NDArray[np.int32] | None = None

    @property
    def fingerprint(self) -> str:
        """What names the corpus and the chosen documents."""
        return self.about["fingerprint"]


def load(folder: str, corpus: str, name: str) -> Arm:
    """An arm of the corpus in a folder, whose fingerprint is ``corpus``.

    Raises:
        ValueError: there is none of that name, or its files do not fit the corpus.
    """
    mask_path, about_path = _paths(folder, name)
    if not storage.exists(about_path):
        raise ValueError(
            f"{folder} has no arm {name!r}: choose one of {names(folder)}, or write it with"
            " model.data.corpus.write_arm"
        )
    about = storage.read_json(about_path)
    try:
        with storage.open_input(mask_path) as file:
            chosen = np.load(file, allow_pickle=False)
        ours = about["fingerprint"] == _fingerprint(corpus, chosen, about.get("controls"))
    except (FileNotFoundError, EOFError, ValueError):
        ours = False
    if not ours:
        raise ValueError(
            f"arm {name!r} is damaged, or does not belong to the corpus {folder} as it is now:"
            f" delete {about_path} and write the arm again (or run model/prepare.py)"
        )
    return _arm(name, chosen, about)


def names(folder: str) -> list[str]:
    """The names of the arms of the corpus in a folder."""
    found = map(os.path.basename, storage.listing(storage.join(folder, "arms")))
    return sorted(name.removesuffix(".json") for name in found if name.endswith(".json"))


def save(
    folder: str,
    corpus: str,
    name: str,
    chosen: Choice,
    content: Mapping[str, Any],
    controls: Mapping[str, Any] | None,
) -> Arm:
    """Write an arm; one of these very documents may be there; its JSON then gets this ``content``.

    Raises:
        ValueError: a bad name, or another arm of that name.
    """
    if not _NAME.match(name):
        raise ValueError(f"arm name {name!r}: use letters, digits, '_', '-', '=' and '.'")
    mask_path, about_path = _paths(folder, name)
    fingerprint = _fingerprint(corpus, chosen, controls)
    about = {"name": name, "fingerprint": fingerprint, **content}
    if controls:
        about["controls"] = dict(controls)
    before = storage.read_json(about_path) if storage.exists(about_path) else None
    if before is None:
        with storage.open_output(mask_path) as file:
            np.save(file, chosen, allow_pickle=False)
    elif before["fingerprint"] != fingerprint:
        raise ValueError(
            f"{folder} has another arm {name!r}: choose a new name, or delete {about_path}"
        )
    if before != about:
        storage.write_json(about_path, about)
    return _arm(name, chosen, about)


def _paths(folder: str, name: str) -> tuple[str, str]:
    stem = storage.join(folder, "arms", name)
    return f"{stem}.npy", f"{stem}.json"


def _arm(name: str, chosen: Choice, about: Mapping[str, Any]) -> Arm:
    copies = None if chosen.dtype == np.bool_ else chosen.astype(np.int32)
    return Arm(name, chosen > 0, about, copies)


def _fingerprint(corpus: str, chosen: Choice, controls: Mapping[str, Any] | None) -> str:
    data = np.packbits(chosen) if chosen.dtype == np.bool_ else chosen
    changed = [sorted(controls.items())] if controls else []
    return files.fingerprint(corpus, xxhash.xxh3_128_hexdigest(data.tobytes()), *changed)
