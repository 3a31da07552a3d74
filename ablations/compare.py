"""Compare the arms of a finished study: the verdict first, then its tables.

python ablations/compare.py study=runs/data_quality

Writes ``comparison.json`` and one CSV per table to ``comparison/`` in the study (or to
``output=DIR``). ``learning_rate=DIR`` names a study of the same arms at several learning rates; it
checks the verdict at each arm's best one. Exit code 1: nothing could be compared.

python ablations/compare.py samples='{base: [a1, a2], tuned: [b1, b2]}' output=comparison

compares any models by their logs of lm-evaluation-harness (--log_samples): folders of results and
samples, one for each run (training seed) of a model. The first model is the baseline. Items are
paired, and runs by their order. Further settings:

  tasks=[…]              tasks to compare; default: all that every run has
  metrics=[acc_norm,…]   metrics in order of preference; default: lm-eval's first of each task
  primary=TASK           the task that the verdict is about; default: the mean over tasks
  smallest_difference=…  of interest; default: 1 point, 0.01 bits per byte
  alpha=0.05 power=0.8   of tests
  allow_different_prompts=true  pair models whose prompts differ (chat templates)
"""

from collections.abc import Sequence

from ablations import compare_samples
from ablations.analyses.comparison import Comparison, compare
from ablations.contrasts import endpoints, variant_selection
from ablations.contrasts.verdict import number
from ablations.page import text_tables
from ablations.page.headline import headline, next_step
from ablations.reading import read_study
from ablations.settings import parse, run
from ablations.study_files.results import Study
from ablations.study_files.table import Row, write_csv
from winnow.filesystem import storage


def main(arguments: Sequence[str]) -> None:
    """Compare, write and print; see ``--help``."""
    names = {argument.partition("=")[0] for argument in arguments}
    if "samples" in names:
        compare_samples.main(arguments, __doc__)
        return
    if names & compare_samples.SAMPLES_ONLY or not names:
        raise ValueError(
            "give samples='{baseline: [DIR, …], treatment: [DIR, …]}', folders that lm-eval wrote"
            " with --log_samples, or study=DIR, the folder that ablations/run.py wrote"
        )
    settings = parse(arguments, __doc__, ["learning_rate", "output"])
    study = variant_selection.choose(read_study(settings["study"]))
    rates = settings.get("learning_rate")
    result = compare(study, read_study(rates) if rates else None)
    output = settings.get("output", storage.join(settings["study"], "comparison"))
    write(result, output)
    print(render(study, result))
    print(f"\nFiles: {output}/comparison.json and a CSV per table")


def write(result: Comparison, output: str) -> None:
    """Write the tables, then ``comparison.json``."""
    write_csv(output, result.tables)
    storage.write_json(storage.join(output, "comparison.json"), result.to_json())


def render(study: Study, result: Comparison) -> str:
    """The comparison as plain text: finding, next step, notes, tables."""
    lines = [
        f"Study {result.study}",
        "",
        *text_tables.wrapped(headline(study, result)),
        *text_tables.wrapped(f"Next: {next_step(study, result)}"),
        "",
        *text_tables.wrapped(result.verdict.sentence),
        *(text_tables.wrapped(result.signs.sentence) if result.signs else []),
        "",
        *(line for note in result.notes for line in text_tables.wrapped(note, "- ")),
        *[""] * bool(result.notes),
        *([] if result.mixture and not result.mixture.confirmed else _errors(result.primary)),
    ]
    arms = {name: str(result.primary[name]) for name in ("treatment", "baseline")}
    for name, (title, columns) in text_tables.TABLES.items():
        if rows := text_tables.shown(name, result.tables.get(name, [])):
            lines += ["", title, *text_tables.lines(rows, columns, arms)]
    return "\n".join(lines)


def _errors(primary: Row) -> list[str]:
    error = primary["seed_error"]
    seeds = "unknown" if error is None else number(error)
    return [
        f"{primary['treatment']} minus {primary['baseline']} on"
        f" {endpoints.label(primary['endpoint'])}: {number(primary['value'], True)}"
        f" {primary['unit']}",
        f"  standard error {number(primary['error'])}: {seeds} between seeds,"
        f" {number(primary['item_error'])} between held-out items",
        f"  {primary['df']:.1f} degrees of freedom, p = {primary['p']:.2g}",
    ]


if __name__ == "__main__":
    run(main)
