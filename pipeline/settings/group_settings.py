"""Rules per group as the user states them: ``rules``, a tree of rules, and ``rules_by``.

    rules_by: [source, language]
    rules:
      web:
        en: {rule: pareto, alpha: 9}
        de: {rule: top_fraction, target_fraction: 0.2, target_unit: bytes}
        "*": {rule: buckets, copies: [0, 1, 2]}
      forum: {rule: threshold, threshold: 0.5}

One rule for all is solved in the same way, as the rule of the only group.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.near_duplicates.choice import Stays
from pipeline.output import schema
from pipeline.rules import solve
from pipeline.rules.decision import Rule
from pipeline.rules.groups import ANY, AnyRule, GroupRules, Groups, Path, label
from pipeline.rules.solve import Band, Places, Sketch
from pipeline.settings import flags, settings_file
from pipeline.settings.decision_settings import BUCKETS, Decision, stays, weights

NAMES = (*(field.name for field in fields(Decision)), "rules", "rules_by")
"""The settings of a decision."""

MOST_GROUPS = 1000

_FOR_ALL = ("deduplicate", "near_duplicates_keep", "near_duplicates_power")
"""Settings that all groups share."""

_LEAF = tuple(field.name for field in fields(Decision) if field.name not in _FOR_ALL)
_UNKNOWN_BEFORE = ("keep_probability", "kept", "drop_reason", "copies", "text")

Sketches = tuple[Sketch, ...]
Bands = tuple[tuple[Band, ...], ...]
PlacesOfGroups = tuple[tuple[Places, ...], ...]


@dataclass(frozen=True)
class GroupDecision:
    """A keep rule for each group of documents, as the user states it."""

    groups: Groups
    decisions: tuple[Decision, ...]
    deduplicate: bool = False
    near_duplicates_keep: str | None = None
    near_duplicates_power: float | None = None
    rules: Mapping[str, Any] | None = None
    """The tree as given; None for one rule for all."""

    def __post_init__(self) -> None:
        _ = self.stays  # checks them

    @property
    def stays(self) -> Stays:
        return stays(self.near_duplicates_keep, self.near_duplicates_power)

    def as_settings(self) -> dict[str, Any]:
        return {
            "rule": "groups",
            "rules": self.rules,
            "rules_by": list(self.groups.by),
            **{name: getattr(self, name) for name in _FOR_ALL},
        }

    @property
    def has_copies(self) -> bool:
        """Whether any group has buckets."""
        return any(decision.rule == BUCKETS for decision in self.decisions)

    def known_rule(self) -> AnyRule | None:
        """The rule, or None if a parameter must be solved for."""
        rules = [decision.known_rule() for decision in self.decisions]
        return None if None in rules else self._rule(rules)

    @property
    def has_cuts(self) -> bool:
        """Whether any group needs a second pass over scores, for a top fraction or buckets."""
        return any(decision.fractions for decision in self.decisions)

    @property
    def columns(self) -> list[str]:
        """The columns of scored documents that the rule is solved from."""
        units = [solve.COLUMN.get(decision.target_unit) for decision in self.decisions]
        names = ["drop_reason", "quality_score", "keep_draw", *self.groups.by, *units]
        return list(dict.fromkeys(filter(None, names)))

    def sketch(self, batches: Iterable[pa.RecordBatch]) -> Sketches:
        """The input of :meth:`bands` and :meth:`solve` from scored documents, for each group."""
        total = [np.zeros(1, np.int64) for _ in self.decisions]
        for number, *columns in self._reaching(batches):
            total[number] = total[number] + self.decisions[number].sketch(*columns)
        return tuple(total)

    def bands(self, total: Sketches) -> Bands:
        """The bands in which each group's fractions end."""
        total = total or self.sketch(())
        pairs = zip(self.decisions, total, strict=True)
        return tuple(decision.bands(sketch) for decision, sketch in pairs)

    def places(self, batches: Iterable[pa.RecordBatch], bands: Bands) -> PlacesOfGroups:
        """The input of :func:`pipeline.rules.solve.cut` from scored documents, for each band."""
        found: list[list[list[Places]]] = [[[] for _ in own] for own in bands]
        for number, *columns in self._reaching(batches):
            for parts, band in zip(found[number], bands[number], strict=True):
                parts.append(solve.places(band, *columns))
        return tuple(tuple(solve.merge_places(parts) for parts in own) for own in found)

    def solve(self, total: Sketches, bands: Bands = (), places: PlacesOfGroups = ()) -> AnyRule:
        """The rules whose yields are nearest to the targets.

        ``total`` is the sum of all sketches, if any; with :attr:`has_cuts`, ``bands`` and
        ``places`` are needed. A group without documents to decide about gets the rule ``all``.

        Raises:
            ValueError: no document reaches the one rule for all, or a target can't be met.
        """
        total = total or self.sketch(())
        nothing = tuple(() for _ in total)
        bands, places = bands or nothing, places or nothing
        rules: list[Any] = []
        each = zip(self.groups.paths, self.decisions, total, strict=True)
        for (path, decision, sketch), *cuts in zip(each, bands, places, strict=True):
            known = decision.known_rule()
            if known is None and self.rules is not None and not sketch.any():
                known = Rule("all")
            try:
                rules.append(known or decision.solve(sketch, list(zip(*cuts, strict=True))))
            except ValueError as error:
                raise ValueError(f"{_of(path)}{error}" if path else str(error)) from error
        return self._rule(rules)

    def _rule(self, rules: Sequence[Any]) -> AnyRule:
        if self.rules is None and not self.has_copies:
            return rules[0]
        return GroupRules(self.groups, tuple(rules))

    def _reaching(self, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, Any, Any, Any]]:
        """Group, scores, draws and weights of documents that no step dropped."""
        for batch in batches:
            reaches = pc.fill_null(pc.equal(batch["drop_reason"], schema.QUALITY), True)
            reaches = reaches.to_numpy(zero_copy_only=False)
            codes = self.groups.of(batch)
            self.groups.check(batch, codes, reaches)
            score, draw = batch["quality_score"].to_numpy(), batch["keep_draw"].to_numpy()
            for number, decision in enumerate(self.decisions):
                rows = reaches & (codes == number)
                if decision.known_rule() is None and rows.any():
                    weight = weights(decision.target_unit, batch)
                    yield number, score[rows], draw[rows], weight[rows]


AnyDecision = Decision | GroupDecision


def grouped(decision: AnyDecision) -> GroupDecision:
    """A decision by groups: one rule for all is that of the only group."""
    if isinstance(decision, GroupDecision):
        return decision
    for_all = {name: getattr(decision, name) for name in _FOR_ALL}
    return GroupDecision(Groups((), ((),)), (decision,), **for_all)


def decision_of(settings: Mapping[str, Any]) -> AnyDecision:
    """The decision in a run's settings.

    Raises:
        ValueError: they contradict each other; the message names the group.
    """
    given = {name: settings[name] for name in NAMES if name in settings}
    rules, by = given.pop("rules", None), given.pop("rules_by", None)
    if rules is None:
        if by is not None:
            raise ValueError("--rules-by has no meaning without --rules: leave it out")
        return Decision(**given)
    if others := sorted(given.keys() - set(_FOR_ALL)):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in others)
        raise ValueError(f"{names} can't be combined with --rules: set it for each group")
    by = tuple(flags.DEFAULT_RULES_BY if by is None else by)
    if not by or len(set(by)) < len(by):
        raise ValueError(f"--rules-by names columns, each once, not {list(by)}")
    leaves = dict(_leaves(rules, (), by))
    names_of = {label(path) for path in leaves}
    if len(names_of) < len(leaves):
        raise ValueError('two groups of rules have one name: avoid "/" in values')
    if len(leaves) > MOST_GROUPS:
        raise ValueError(f"rules has {len(leaves):,} groups, more than {MOST_GROUPS:,}")
    return GroupDecision(Groups(by, tuple(leaves)), tuple(leaves.values()), rules=rules, **given)


def _of(path: Path) -> str:
    return f"rules of {label(path)}: "


def _leaves(tree: Any, path: Path, by: tuple[str, ...]) -> Iterator[tuple[Path, Decision]]:
    """The rules of a tree, by path. A mapping without mappings as values is a rule."""
    if not isinstance(tree, Mapping) or not tree:
        raise ValueError(f"{_of(path)}expected a rule, as {{rule: pareto, alpha: 9}}, not {tree!r}")
    if path and not any(isinstance(value, Mapping) for value in tree.values()):
        yield path, _leaf(tree, path)
        return
    if len(path) == len(by):
        raise ValueError(
            f"{_of(path)}there are more levels than columns in rules_by ({', '.join(by)})"
        )
    for value, below in tree.items():
        if not isinstance(value, str):
            raise ValueError(
                f"{_of(path)}the value {value!r} is not text: put it in quotes (YAML reads no as"
                " false)"
            )
        yield from _leaves(below, (*path, value), by)


def _leaf(settings: Mapping[str, Any], path: Path) -> Decision:
    if unknown := [name for name in settings if name not in _LEAF]:
        raise ValueError(f"{_of(path)}unknown keys {unknown}; a rule has {', '.join(_LEAF)}")
    if "rule" not in settings:
        raise ValueError(f"{_of(path)}rule is missing: one of {', '.join(flags.RULES)}")
    types = get_type_hints(Decision)
    for name, value in settings.items():
        if not settings_file.fits(value, types[name]):
            raise ValueError(f"{_of(path)}{name} can't be {value!r}")
    if settings["rule"] == "pareto" and not {"alpha", "target_fraction"} & settings.keys():
        raise ValueError(f"{_of(path)}pareto needs alpha or target_fraction")
    try:
        return Decision(**settings)
    except ValueError as error:
        raise ValueError(f"{_of(path)}{error}") from error


def check(decision: AnyDecision, columns: Collection[str], filtered: Collection[str]) -> None:
    """Raise ValueError if documents lack a grouping column or a filtered source lacks a rule."""
    groups = grouped(decision).groups
    known = [name for name in columns if name not in _UNKNOWN_BEFORE]
    for name in groups.by:
        if name not in known:
            raise ValueError(
                f"--rules-by {name}: documents have no such column before the decision: add"
                f" --metadata {name} to the run, or choose of {', '.join(known)}"
            )
    if "source" not in groups.by:
        return
    depth = groups.by.index("source")
    named = {path[depth] if depth < len(path) else ANY for path in groups.paths}
    if unknown := sorted(named - {ANY, *filtered}):
        raise ValueError(
            f"rules names {', '.join(unknown)}, but the filtered sources are"
            f" {', '.join(sorted(filtered)) or 'none'} (--filter)"
        )
    if ANY not in named and (without := sorted(set(filtered) - named)):
        raise ValueError(
            f'no rule is for source {", ".join(without)}: add one to rules, or "{ANY}" for all'
            " that are not named"
        )
