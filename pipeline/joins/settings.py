"""The settings of a join: ``NAME=FILES:key=url:field=page:columns=score,topic``."""

import dataclasses
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from quality_classifier.combining import check_name

KEYS = ("id", "url", "host")
DUPLICATES = ("error", "first", "last")

_SETTING = re.compile(r":(key|field|columns|duplicates|missing)=([^:]*)$")


@dataclass(frozen=True)
class Join:
    """Files with a row for each key, whose columns documents get; ValueError for a wrong setting.

    Attributes:
        files: globs.
        key: match rows by the document's ``id``, the canonical form of its ``url``
            (:mod:`winnow.text.urls`), or that URL's ``host`` without ``www.``.
        field: the files' column with the key; empty: named like the key.
        columns: those to take; all but the key if empty.
        duplicates: of rows with one key, keep the ``first`` or ``last`` by file name and row, or
            raise an ``error``.
        missing: the score, from 0 to 1, of a document without a value where a column decides.
    """

    files: Sequence[str]
    key: str = "id"
    field: str = ""
    columns: Sequence[str] = ()
    duplicates: str = "error"
    missing: float = 0.0

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("it names no files")
        for name, known in (("key", KEYS), ("duplicates", DUPLICATES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, not {getattr(self, name)}")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("it names a column twice")
        if not (math.isfinite(self.missing) and 0 <= self.missing <= 1):
            raise ValueError(f"missing is from 0 to 1, not {self.missing}")

    @property
    def key_field(self) -> str:
        """The column of the files that holds the key."""
        return self.field or self.key

    def column(self, name: str, field: str) -> str:
        """The name in the shards of a column of the join ``name``."""
        return f"{name}_{field}"


def is_joined(column: str, joins: Collection[str]) -> bool:
    """Whether a column of the shards belongs to one of these joins, by its name."""
    return any(column.startswith(f"{name}_") for name in joins)


def parse(values: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The settings of each join in values of ``--join``; a repeated name adds files.

    Raises:
        ValueError: a value is malformed, or a setting is repeated.
    """
    joins: dict[str, dict[str, Any]] = {}
    for text in values:
        name, equals, rest = text.partition("=")
        settings: dict[str, Any] = {}
        while found := _SETTING.search(rest):
            if found[1] in settings:
                raise ValueError(f"--join {text}: {found[1]} is given twice")
            settings[found[1]] = found[2].split(",") if found[1] == "columns" else found[2]
            rest = rest[: found.start()]
        if not (equals and name and rest):
            raise ValueError(f"--join {text!r} is not of the form NAME=FILES[:key=id|url|host][:…]")
        if "missing" in settings:
            try:
                settings["missing"] = float(settings["missing"])
            except ValueError:
                raise ValueError(f"--join {text}: missing is not a number") from None
        of = joins.setdefault(name, {"files": []})
        of["files"].append(rest)
        if twice := of.keys() & settings.keys():
            raise ValueError(f"--join {text}: {', '.join(sorted(twice))} is given twice")
        of.update(settings)
    return joins


def joins_of(given: Mapping[str, Any]) -> dict[str, Join]:
    """The joins in a run's settings: for each name a glob, a list of globs, or a mapping.

    Raises:
        ValueError: a name or setting is wrong; the message names the join.
    """
    joins = {}
    kinds = get_type_hints(Join)
    for name, settings in sorted(given.items()):
        try:
            check_name(name)
            if not isinstance(settings, Mapping):
                settings = {"files": settings}
            lists = {
                key: [value] if key in ("files", "columns") and isinstance(value, str) else value
                for key, value in settings.items()
            }
            if unknown := sorted(lists.keys() - kinds.keys()):
                raise ValueError(f"it has no setting {', '.join(map(str, unknown))}")
            for key, value in lists.items():
                _check_kind(key, value)
            values: dict[str, Any] = {**lists, "files": sorted(lists.get("files", ()))}
            joins[name] = Join(**values)
        except ValueError as error:
            raise ValueError(f"--join {name}: {error}") from error
    return joins


def _check_kind(key: str, value: Any) -> None:
    kind = {field.name: field.type for field in dataclasses.fields(Join)}[key]
    if key in ("files", "columns"):
        fits = isinstance(value, list) and all(isinstance(item, str) and item for item in value)
    elif key == "missing":
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        fits = isinstance(value, str)
    if not fits:
        words = {"files": "a glob or a list", "columns": "a list of names"}
        raise ValueError(f"{key} should be {words.get(key, kind)}, not {value!r}")
