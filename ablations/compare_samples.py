"""Compare any models by their lm-evaluation-harness logs; ``winnow compare samples=…``.

The first arm is the baseline. Writes ``comparison.json``, a CSV per table and ``report.html``.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from ablations import settings
from ablations.samples import log, pairing, text
from ablations.samples.comparison import Comparison, Criteria, compare
from ablations.samples.page import page_data
from ablations.study_files.table import write_csv
from pipeline import page
from winnow.filesystem import storage

OPTIONAL = (
    *("output", "tasks", "metrics", "primary", "smallest_difference", "alpha", "power"),
    "allow_different_prompts",
)
"""Settings beside ``samples``."""

SAMPLES_ONLY = {"samples", *OPTIONAL} - {"output"}
"""Settings that only this comparison has."""

OUTPUT = "comparison"
PAGE = "report.html"
SCRIPTS = ("marks.js", "plots.js")


def main(arguments: Sequence[str], description: str | None) -> None:
    usage = " ".join(["samples='{ARM: [DIR, …], …}'", *(f"[{name}=…]" for name in OPTIONAL)])
    texts = settings.parse(arguments, description, OPTIONAL, "samples", usage)
    values = {name: settings.value(f"{name}={value}") for name, value in texts.items()}
    arms = {arm: [*map(log.read, paths)] for arm, paths in _folders(values["samples"]).items()}
    any_prompts = values.get("allow_different_prompts", False)
    if not isinstance(any_prompts, bool):
        raise ValueError("allow_different_prompts is true or false")
    paired = pairing.pair(arms, _names(values, "tasks"), any_prompts)
    result = compare(paired, _criteria(values))
    output = texts.get("output", OUTPUT)
    write(result, paired, arms, output)
    print(text.render(result, paired))
    print(f"\nFiles: {output}/{PAGE}, comparison.json and a CSV per table")


def write(result: Comparison, paired: pairing.Paired, arms: pairing.Arms, output: str) -> None:
    """Write tables, page and, last, ``comparison.json``."""
    write_csv(output, result.tables)
    storage.write_bytes(storage.join(output, PAGE), render_page(result, paired, arms).encode())
    storage.write_json(storage.join(output, "comparison.json"), result.to_json())


def render_page(result: Comparison, paired: pairing.Paired, arms: pairing.Arms) -> str:
    """The page as one self-contained HTML file."""
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


def _folders(value: Any) -> dict[str, list[str]]:
    how = "write samples='{baseline: [DIR, …], treatment: [DIR, …]}', a folder for each run"
    if not isinstance(value, Mapping) or len(value) < 2:
        raise ValueError(f"samples must name at least two arms: {how}")
    folders = {str(arm): v if isinstance(v, list) else [v] for arm, v in value.items()}
    for arm, paths in folders.items():
        if not paths or not all(isinstance(path, str) and path for path in paths):
            raise ValueError(f"samples has no folders for {arm}: {how}")
    every = [path.rstrip("/") for paths in folders.values() for path in paths]
    if repeated := next((path for path in every if every.count(path) > 1), None):
        raise ValueError(f"samples names {repeated} twice: give each run once")
    return folders


def _names(values: Mapping[str, Any], name: str) -> list[str]:
    value = values.get(name, [])
    return [str(item) for item in (value if isinstance(value, list) else [value])]


def _criteria(values: Mapping[str, Any]) -> Criteria:
    numbers = {}
    for name in filter(values.__contains__, ("smallest_difference", "alpha", "power")):
        if isinstance(values[name], bool) or not isinstance(values[name], int | float):
            raise ValueError(f"{name} is a number, not {json.dumps(values[name])}")
        numbers[name] = float(values[name])
    return Criteria(_names(values, "metrics"), str(values.get("primary", "")), **numbers)
