"""Reads and writes the arms of a corpus: named subsets of its documents.

An arm's fingerprint covers that of its corpus. :func:`model.data.corpus.write_arm` checks the
choice of documents.
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
"""Which documents an arm reads, or how often per epoch: [documents]."""

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.=-]*$")


@dataclass(frozen=True)
class Arm:
    """A named subset: ``mask`` is bool [documents], ``about`` the content of ``arms/<name>.json``.

    ``copies`` counts how often an epoch reads each document, int32 [documents]; None means once.
    """

    name: str
    mask: BoolArray
    about: Mapping[str, Any]
    copies: npt.NDArray[np.int32] | None = None

    @property
    def fingerprint(self) -> str:
        """Covers the corpus, the chosen documents and the controls."""
        return self.about["fingerprint"]


def load(folder: str, corpus: str, name: str) -> Arm:
    """Load an arm of the corpus in ``folder`` with fingerprint ``corpus``.

    Raises ValueError if no arm has that name, or its files do not match the corpus.
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
    """The names of a corpus's arms, sorted."""
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
    """Write an arm; if it exists with the same documents, update only its JSON.

    Raises ValueError if the name is invalid, or belongs to a different arm.
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
