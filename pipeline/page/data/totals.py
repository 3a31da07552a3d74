"""The totals of a run in words and numbers, for its page, its card and the terminal."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.output.score_counts import COUNTS
from pipeline.page.data.changed_texts import sentence
from pipeline.page.data.keep_rules import in_words

NAME_CHARACTERS = 300


def headline(sources: pa.Table) -> str:
    """Text kept and read, in one line."""
    read, kept = total(sources, "read"), total(sources, "kept")
    return (
        f"Kept {kept[0]:,} of {read[0]:,} documents ({share(kept[0], read[0])}),"
        f" {megabytes(kept[1])} of {megabytes(read[1])} MB"
    )


def account(manifest: Mapping[str, Any], sources: pa.Table) -> list[str]:
    """Sentences on sources, rule, quarantine and changed texts."""
    out = []
    if filtered := _named(sources, True):
        out.append(f"Filtered: {filtered}. There, {in_words(manifest['rule'])}.")
    if unfiltered := _named(sources, False):
        out.append(f"Pass-through, kept as they are: {unfiltered}.")
    quarantined = total(sources, "quarantined")[0]
    out.append(
        f"{quarantined:,} records could not be read; they are in quarantine/ with their reasons."
        if quarantined
        else "Every record could be read."
    )
    return out + sentence(manifest)


DAMAGE = ("mojibake", "U+FFFD", "cut short")
"""Text decoded with the wrong charset, with invalid bytes, or truncated."""


def damage(manifest: Mapping[str, Any], groups: pa.Table) -> defaultdict[str, list[int]]:
    """The number of documents with each kind of :data:`DAMAGE`, by source."""
    found: defaultdict[str, list[int]] = defaultdict(lambda: [0] * len(DAMAGE))
    decoding = groups.filter(pc.equal(groups["column"], "decoding"))
    for row in decoding.to_pylist():
        for place, kind in enumerate(DAMAGE):
            if kind in row["value"]:
                found[row["source"]][place] += row["documents"]
    for task in manifest["tasks"]:
        found[task["task"]["source"]][-1] += task.get("truncated", 0)
    return found


def total(sources: pa.Table, outcome: str) -> list[int]:
    """Documents, bytes and words of one outcome over all sources."""
    rows = sources.filter(pc.equal(sources["outcome"], outcome))
    return [pc.sum(rows[name]).as_py() or 0 for name in COUNTS]


def add_up(values: Sequence[Any]) -> Any:
    """The sum of numbers, of lists by place and of mappings by key."""
    if isinstance(values[0], list):
        return [add_up(column) for column in zip(*values, strict=True)]
    if isinstance(values[0], dict):
        keys = dict.fromkeys(key for value in values for key in value)
        return {key: add_up([value[key] for value in values if key in value]) for key in keys}
    return sum(values)


def megabytes(n_bytes: int) -> str:
    """Bytes as MB (10⁶ bytes) with two decimals."""
    return f"{n_bytes / 1e6:,.2f}"


def share(part: int, total: int) -> str:
    """A percentage with three significant digits; a dash if the total is 0."""
    return f"{100 * part / total:.3g} %" if total else "–"


def _named(sources: pa.Table, filtered: bool) -> str:
    rows = sources.filter(pc.equal(sources["filtered"], filtered))
    names = [clip(name) for name in sorted(set(rows["source"].to_pylist()))]
    if len(names) <= 8:
        return ", ".join(names)
    return f"{len(names)} sources ({', '.join(names[:3])}, …)"


def clip(text: str) -> str:
    """A name from the input, cut to :data:`NAME_CHARACTERS`."""
    return text if len(text) <= NAME_CHARACTERS else text[: NAME_CHARACTERS - 1] + "…"
