"""Compares any models by what lm-evaluation-harness logged of them; ``winnow compare samples=…``.

The first arm is the baseline. Writes ``comparison.json``, a CSV per table and ``report.html``.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from ablations import settings
from ablations.samples import log, pairing, text
from ablations.samples.comparison import Asked, Comparison, compare
from ablations.samples.page import page_data
from ablations.study_files.table import to_csv
from pipeline import page
from winnow.filesystem import storage

FURTHER = (
    "output",
    "tasks",
    "metrics",
    "primary",
    "smallest_difference",
    "alpha",
    "power",
    "allow_different_prompts",
)
"""Settings beside ``samples``."""

OWN = {"samples", *FURTHER} - {"output"}
"""Settings that a study has not."""

OUTPUT = "comparison"
PAGE = "report.html"
SCRIPTS = ("marks.js", "plots.js")


def main(arguments: Sequence[str], description: str | None) -> None:
    """Read, pair, compare, print, write."""
    usage = " ".join(["samples='{ARM: [DIR, …], …}'", *(f"[{name}=…]" for name in FURTHER)])
    given = settings.parse(arguments, description, FURTHER, "samples", usage)
    found = {name: settings.value(f"{name}={value}") for name, value in given.items()}
    arms = {
        arm: [log.read(place) for place in places]
        for arm, places in _places(found["samples"]).items()
    }
    any_prompts = found.get("allow_different_prompts", False)
    if not isinstance(any_prompts, bool):
        raise ValueError("allow_different_prompts is true or false")
    paired = pairing.pair(arms, _names(found, "tasks"), any_prompts)
    result = compare(paired, _asked(found))
    output = given.get("output", OUTPUT)
    write(result, paired, arms, output)
    print(text.render(result, paired))
    print(f"\nFiles: {output}/{PAGE}, comparison.json and a CSV per table")


def write(result: Comparison, paired: pairing.Paired, arms: pairing.Arms, output: str) -> None:
    """Write tables, page and ``comparison.json``, which comes last; each file appears whole."""
    for name, rows in result.tables.items():
        storage.write_bytes(storage.join(output, f"{name}.csv"), to_csv(rows).encode())
    storage.write_bytes(storage.join(output, PAGE), render_page(result, paired, arms).encode())
    storage.write_json(storage.join(output, "comparison.json"), result.to_json())


def render_page(result: Comparison, paired: pairing.Paired, arms: pairing.Arms) -> str:
    """The page: HTML that needs no other file. The same data give the same text."""
    data = page_data(result, paired, arms)
    shared = [files("ablations.page").joinpath(name).read_text("utf-8") for name in SCRIPTS]
    own = files("ablations.samples")
    styles = [files("ablations.page").joinpath("report.css"), own.joinpath("page.css")]
    return page.assemble(
        f"Winnow: {result.headline}",
        own.joinpath("page.html").read_text("utf-8"),
        [*shared, own.joinpath("page.js").read_text("utf-8")],
        data,
        "".join(style.read_text("utf-8") for style in styles),
    )


def _places(value: Any) -> dict[str, list[str]]:
    """The folders of each arm."""
    how = "write samples='{baseline: [DIR, …], treatment: [DIR, …]}', a folder for each run"
    if not isinstance(value, Mapping) or len(value) < 2:
        raise ValueError(f"samples must name two arms or more: {how}")
    places = {str(arm): of if isinstance(of, list) else [of] for arm, of in value.items()}
    for arm, of in places.items():
        if not of or not all(isinstance(place, str) and place for place in of):
            raise ValueError(f"samples has no folders for {arm}: {how}")
    every = [place.rstrip("/") for of in places.values() for place in of]
    if twice := next((place for place in every if every.count(place) > 1), None):
        raise ValueError(f"samples names {twice} twice, and a run differs from itself in nothing")
    return places


def _names(found: Mapping[str, Any], name: str) -> list[str]:
    value = found.get(name, [])
    return [str(item) for item in (value if isinstance(value, list) else [value])]


def _asked(found: Mapping[str, Any]) -> Asked:
    numbers = {}
    for name in ("smallest_difference", "alpha", "power"):
        if name in found:
            if isinstance(found[name], bool) or not isinstance(found[name], int | float):
                raise ValueError(f"{name} is a number, not {json.dumps(found[name])}")
            numbers[name] = float(found[name])
    return Asked(_names(found, "metrics"), str(found.get("primary", "")), **numbers)
