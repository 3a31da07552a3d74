"""A comparison of logged samples as plain text."""

from ablations.contrasts.verdict import number
from ablations.page import text_tables
from ablations.page.text_tables import DIFFERENCE, Column, chance, figure, interval, text
from ablations.samples.comparison import Comparison
from ablations.samples.pairing import Paired
from ablations.study_files.table import Row

TABLES = {
    "runs_of_primary": (
        "Primary endpoint by run",
        [Column("run", lambda row: str(row["run"])), figure("treatment"), figure("baseline"),
         DIFFERENCE],
    ),
    "tests": (
        "Tests, with Holm's adjustment over all of them, and the difference each could see",
        [text("arm"), text("label", "measured on"), Column("items", lambda row: str(row["items"])),
         DIFFERENCE, interval("family_low", "family_high"), chance("p_holm"),
         figure("detectable", "sees"), Column("outcome", lambda row: str(row["outcome"]))],
    ),
    "scores": (
        "Scores; intervals are no tests",
        [text("label", "measured on", once=True), text("arm"), figure("value"),
         interval("value_low", "value_high", signed=False), text("against_chance", "guessing")],
    ),
    "left_out": ("Not compared", [text("task"), text("metric"), text("filter"), text("reason")]),
}  # fmt: skip


def render(result: Comparison, paired: Paired) -> str:
    primary = result.primary
    arms = {name: str(primary[name]) for name in ("treatment", "baseline")}
    runs = f"{paired.runs} run{'s' if paired.runs > 1 else ''} of each model"
    partial = primary["tasks"] != result.paired["tasks"]
    about = f"; the verdict is on {_counted(primary)}" if partial else ""
    out = [
        *text_tables.wrapped(result.headline),
        "",
        *text_tables.wrapped(result.verdict.sentence),
        "",
        *text_tables.wrapped(f"{_counted(result.paired)} were paired, in {runs}{about}.", "- "),
        *(line for note in result.notes for line in text_tables.wrapped(note, "- ")),
        "",
        f"{primary['treatment']} minus {primary['baseline']} on {primary['on']}:"
        f" {number(primary['value'], True)} {primary['unit']}",
        f"  standard error {number(primary['error'])}, p = {primary['p']:.2g}; could see"
        f" {number(result.verdict.detectable or 0)}",
    ]
    for name, (title, columns) in TABLES.items():
        if rows := result.tables[name]:
            shown = columns if name != "tests" or len(paired.arms) > 2 else columns[1:]
            out += ["", title, *text_tables.lines(rows, shown, arms)]
    return "\n".join(out)


def _counted(row: Row) -> str:
    return f"{row['items']} items of {row['tasks']} task{'s' if row['tasks'] > 1 else ''}"
