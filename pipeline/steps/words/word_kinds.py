"""The setting ``words`` of steps: which words they count."""

from collections.abc import Callable, Mapping
from typing import Final

import pyarrow as pa

from pipeline.steps.words import english_tokens, segmentation

WHITESPACE: Final = "whitespace"
DATATROVE: Final = "datatrove"
CHARACTERS: Final = "characters"

Separate = Callable[[pa.Array], pa.Array]

_SEPARATE: Mapping[str, Separate | None] = {
    WHITESPACE: None,
    DATATROVE: english_tokens.separate,
    CHARACTERS: segmentation.separate,
}


def separator(words: str, *without: str) -> Separate | None:
    """What puts white space between words that have none, for a value of the setting ``words``.

    None if words are what white space parts.

    Raises:
        ValueError: the setting has no such value, or it is one that the step is ``without``.
    """
    known = [name for name in _SEPARATE if name not in without]
    if words not in known:
        raise ValueError(f"words is {' or '.join(map(repr, known))}, not {words!r}")
    return _SEPARATE[words]
