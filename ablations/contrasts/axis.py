"""Arms or variants called ``name=number``: points of an axis, such as alpha, experts or a dose."""

import re
from collections.abc import Sequence

_POINT = re.compile(r"^(.+)=(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)$")


def axis_of(names: Sequence[str]) -> tuple[str, dict[str, float]] | None:
    """The common name and the numbers, by ``name=number``; None for other names."""
    parsed = {name: match.groups() for name in names if (match := _POINT.match(name))}
    words = {word for word, _ in parsed.values()}
    if len(parsed) < 2 or len(parsed) < len(names) or len(words) > 1:
        return None
    return words.pop(), {name: float(number) for name, (_, number) in parsed.items()}
