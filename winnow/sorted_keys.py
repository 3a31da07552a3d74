"""Lookups in sorted keys."""

from typing import Any

import numpy as np
import numpy.typing as npt


def find(
    ascending: npt.NDArray[Any], keys: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The index of each of n keys in ascending ones (int64 [n]), and which occur (bool [n])."""
    if not len(ascending):
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), np.bool_)
    at = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    return at, ascending[at] == keys


def among(ascending: npt.NDArray[Any], keys: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which of n keys are among ascending ones: bool [n]."""
    return find(ascending, keys)[1]
