"""Write the page of a study: one offline HTML file, verdict first, and a CSV per figure.

python ablations/report.py study=runs/data_quality

Writes ``report.html`` and ``figures/*.csv`` into the study, which may be unfinished.
``learning_rate=DIR`` names a study of the same arms at several learning rates, as for
``ablations/compare.py``; ``claims=DIR,DIR`` names further studies of this corpus (other sizes,
experts, a dense twin), with which the page answers GLaM's claims one by one.
"""

import re
from collections.abc import Sequence
from importlib.resources import files

from ablations.analyses.comparison import Comparison, compare
from ablations.contrasts import variant_selection
from ablations.page.data import Json, page_data
from ablations.page.training_log import read_log
from ablations.reading import read_study
from ablations.settings import parse, run
from ablations.study_files.results import Study
from ablations.study_files.table import write_csv
from pipeline import page
from winnow.filesystem import storage

PAGE = "report.html"
FIGURES = "figures"
SCRIPTS = (
    *("marks.js", "plots.js", "report.js", "mixtures.js", "claims.js"),
    *("curves.js", "sizes.js", "details.js"),
)
EVALUATION = re.compile(r"[^/]+/evaluation\.json")
"""The report of ``ablations/evaluate.py``, in the folder ``tasks`` of a job."""


def main(arguments: Sequence[str]) -> None:
    settings = parse(arguments, __doc__, ["learning_rate", "claims"])
    claims = [path for path in settings.get("claims", "").split(",") if path]
    print(write_report(settings["study"], settings.get("learning_rate"), claims))


def write_report(path: str, learning_rate: str | None = None, claims: Sequence[str] = ()) -> str:
    """Write the page and its figures' CSV files; return the page's path.

    If nothing can be compared yet, the page says so. ``learning_rate`` is the folder of a study of
    the same arms at several learning rates, ``claims`` those of studies that test GLaM's claims.

    Raises:
        ValueError: a study's file is invalid, or the study of learning rates does not match.
    """
    rates = read_study(learning_rate) if learning_rate else None
    data = gather(path, read_study(path), rates, [read_study(other) for other in claims])
    for old in storage.listing(storage.join(path, FIGURES)):
        if old.endswith(".csv"):
            storage.remove(old)
    figures = {
        name: [dict(zip(figure["columns"], row, strict=True)) for row in figure["rows"]]
        for name, figure in data["figures"].items()
        if figure["rows"]
    }
    write_csv(storage.join(path, FIGURES), figures)
    target = storage.join(path, PAGE)
    storage.write_bytes(target, render(data).encode())
    return target


def gather(
    path: str, study: Study, learning_rate: Study | None, others: Sequence[Study] = ()
) -> Json:
    result: Comparison | ValueError
    try:
        study = variant_selection.choose(study)
        result = compare(study, others=others)
    except ValueError as error:
        result = error  # shown on the page
    if learning_rate is not None:
        result = compare(study, learning_rate, others)
    logs = {job: log for job in study.runs if (log := read_log(path, job)) is not None}
    return page_data(study, result, logs, not_run(path, study))


def not_run(path: str, study: Study) -> dict[str, str]:
    """Tasks that an evaluation could not run, with reasons."""
    reasons: dict[str, str] = {}
    for job in study.runs:
        tasks = storage.join(job.folder(path), "tasks")
        for name in sorted(storage.tree(tasks)):
            if EVALUATION.fullmatch(name):
                reasons |= storage.read_json(storage.join(tasks, name))["not_run"]
    return reasons


def render(data: Json) -> str:
    """The page as one self-contained HTML file."""
    scripts = [_read(name) for name in SCRIPTS]
    title = f"Winnow: {data['headline']} ({data['study']})"
    return page.assemble(title, _read("report.html"), scripts, data, _read("report.css"))


def _read(name: str) -> str:
    return files("ablations.page").joinpath(name).read_text(encoding="utf-8")


if __name__ == "__main__":
    run(main)
