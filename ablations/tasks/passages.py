"""Finds the items of a dataset that share a passage, by the names of its fields."""

from collections.abc import Mapping, Sequence
from typing import Any

PASSAGES = (
    *("passage", "article", "context", "story", "paragraph"),
    *("background", "source_id", "premise"),
)
"""Fields of a document that several items may share: a text, or the id of one."""


def passages_of(doc: Any) -> dict[str, str | int]:
    """The fields of a document that several items may share."""
    if not isinstance(doc, Mapping):
        return {}
    return {name: doc[name] for name in PASSAGES if isinstance(doc.get(name), str | int)}


def clusters(
    passages: Sequence[Mapping[str, str | int]], items: Sequence[int]
) -> tuple[str | None, list[str]]:
    """The field by which items share passages, and the passage of each item.

    It is the first of :data:`PASSAGES` that all items have and some, but not all, share. Without
    one, each item is its own passage. ``passages`` are from :func:`passages_of`, ``items`` numbers.
    """
    for name in PASSAGES:
        texts = [fields.get(name) for fields in passages]
        if all(text not in (None, "") for text in texts) and 1 < len(set(texts)) < len(texts):
            places = {text: f"{name} {k}" for k, text in enumerate(dict.fromkeys(texts))}
            return name, [places[text] for text in texts]
    return None, [str(item) for item in items]
