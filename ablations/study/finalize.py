"""Finalize a study after its last job: failures, verdict, page."""

import sys

from ablations import compare
from ablations.analyses.comparison import compare as compare_study
from ablations.contrasts import variant_selection
from ablations.reading import read_study
from ablations.report import PAGE, write_report
from ablations.study_files.results import FAILURE
from winnow.filesystem import storage


def finalize_study(folder: str, shown: str) -> bool:
    """Print failures and the verdict; write the comparison and the page.

    Args:
        folder: the study's folder.
        shown: its path in messages; differs for a study in a bucket.

    Returns:
        Whether every job is complete and the arms could be compared.
    """
    study = read_study(folder)
    declared, runs = study.declared, study.runs
    for key, error in study.failed.items():
        record = storage.join(key.folder(shown), FAILURE)
        print(f"FAILED {key.name}: {error} (traceback in {record})", file=sys.stderr)
    for key in [*study.unfinished, *study.missing]:
        print(f"NOT RUN {key.name}", file=sys.stderr)
    write_report(folder)
    print(f"\nPage: {storage.join(shown, PAGE)}")
    if not study.runs:
        print("no job is complete: nothing to compare", file=sys.stderr)
        return False
    try:
        study = variant_selection.choose(study)
        result = compare_study(study)
    except ValueError as error:
        print(f"not compared: {error}", file=sys.stderr)
        return False
    compare.write(result, storage.join(folder, "comparison"))
    print(f"Tables: {storage.join(shown, 'comparison')}\n\n{compare.render(study, result)}")
    return len(runs) == len(declared.arms) * len(declared.variants) * len(declared.seeds)
