"""Rules per group of documents, by source, language or other columns.

A group is the set of documents with one path: a value for each grouping column. ``*`` stands for
every value that its siblings don't name; a path that ends early covers all remaining columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rules.buckets import Buckets
from pipeline.rules.decision import FloatArray, Rule
from winnow.text.groups import NONE

ANY = "*"
"""Stands for every value that its siblings don't name."""

Path = tuple[str, ...]
Codes = npt.NDArray[np.int64]


def label(path: Path) -> str:
    """The name of a group in statistics and on pages, such as ``web/en``."""
    return "/".join(path) or ANY


@dataclass(frozen=True)
class Groups:
    """The grouping columns, and the groups' paths."""

    by: tuple[str, ...]
    paths: tuple[Path, ...]

    def find(self, values: Sequence[str]) -> int:
        """The index of a document's group, by its values of the columns; -1 if none."""
        left = list(range(len(self.paths)))
        for depth, value in enumerate(values):
            if any(len(self.paths[i]) == depth for i in left):
                break
            own = [i for i in left if self.paths[i][depth] == value]
            left = own or [i for i in left if self.paths[i][depth] == ANY]
        return left[0] if left else -1

    def of(self, batch: pa.RecordBatch) -> Codes:
        """The index of the group of n documents: int64 [n], -1 for none."""
        codes = np.zeros(len(batch), np.int64)
        if not self.by:
            return codes
        columns = [_text(batch[name]) for name in self.by]
        for column in columns:
            encoded = column.dictionary_encode()
            codes = codes * len(encoded.dictionary) + encoded.indices.to_numpy()
            codes = np.unique(codes, return_inverse=True)[1]
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        rows = [[column[row].as_py() for column in columns] for row in first.tolist()]
        return np.array([self.find(row) for row in rows], np.int64)[inverse]

    def check(self, batch: pa.RecordBatch, codes: Codes, reaches: npt.NDArray[np.bool_]) -> None:
        """Raise ValueError if a document ``reaches`` the decision (bool [n]) without a rule."""
        without = np.flatnonzero(reaches & (codes < 0))
        if len(without):
            row = int(without[0])
            values = [_text(batch[name])[row].as_py() for name in self.by]
            group = ", ".join(f"{n} {v!r}" for n, v in zip(self.by, values, strict=True))
            hint = (
                ", or identify languages with --steps language or --field language=FIELD"
                if "language" in self.by and values[self.by.index("language")] == NONE
                else ""
            )
            raise ValueError(
                f'no rule is for {group}: add one to rules, or "{ANY}" for all others{hint}'
            )


def _text(column: pa.Array) -> pa.Array:
    return pc.fill_null(column.cast(pa.string()), NONE)


@dataclass(frozen=True)
class GroupRules:
    """One rule for each group."""

    groups: Groups
    rules: tuple[Rule | Buckets, ...]


AnyRule = Rule | GroupRules


def decide(
    rule: AnyRule,
    batch: pa.RecordBatch,
    score: npt.NDArray[np.float32],
    reaches: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Copies (int32 [n]) and keep probability (float32 [n]) of n documents by ``score`` (float32
    [n]); 0 for those that do not reach the decision (bool [n]).

    ``batch`` has ``keep_draw`` and the grouping columns. Raises ValueError for a document without a
    group that reaches the decision.
    """
    draw = batch["keep_draw"].to_numpy()
    if isinstance(rule, Rule):
        copies = rule.repeats(score, draw) * reaches
        return copies, np.where(reaches, rule.probability(score), np.float32(0))
    copies, probability = np.zeros(len(batch), np.int32), np.zeros(len(batch), np.float32)
    codes = rule.groups.of(batch)
    rule.groups.check(batch, codes, reaches)
    for number, own in enumerate(rule.rules):
        rows = np.flatnonzero(reaches & (codes == number))
        if len(rows):
            copies[rows] = own.repeats(score[rows], draw[rows])
            probability[rows] = own.probability(score[rows])
    return copies, probability


def distance(rule: AnyRule, batch: pa.RecordBatch) -> FloatArray:
    """The distance of n documents from the opposite decision: float64 [n], inf for no group."""
    score, draw = batch["quality_score"].to_numpy(), batch["keep_draw"].to_numpy()
    if isinstance(rule, Rule):
        return rule.distance(score, draw)
    far = np.full(len(batch), np.inf)
    codes = rule.groups.of(batch)
    for number, own in enumerate(rule.rules):
        rows = codes == number
        far[rows] = own.distance(score[rows], draw[rows])
    return far


def to_json(rule: AnyRule) -> dict[str, Any]:
    """The manifest's form of a rule: ``{name, parameter, ties}`` for all documents, or ``{name:
    "groups", by, groups: [{group, path, rule}]}``, where buckets are ``{name: "buckets", copies,
    cuts: [{parameter, ties}]}``.
    """
    if isinstance(rule, Rule):
        return asdict(rule)
    groups = [
        {"group": label(path), "path": list(path), "rule": _one_to_json(own)}
        for path, own in zip(rule.groups.paths, rule.rules, strict=True)
    ]
    return {"name": "groups", "by": list(rule.groups.by), "groups": groups}


def _one_to_json(rule: Rule | Buckets) -> dict[str, Any]:
    if isinstance(rule, Rule):
        return asdict(rule)
    cuts = [{"parameter": cut.parameter, "ties": cut.ties} for cut in rule.cuts]
    return {"name": "buckets", "copies": list(rule.copies), "cuts": cuts}


def rules_of(manifest_rule: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The groups of a manifest's rule; none for one rule for all."""
    return list(manifest_rule.get("groups", ()))
