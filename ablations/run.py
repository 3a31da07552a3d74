r"""Train every arm of a study with every seed, evaluate, and compare; or resume.

python ablations/run.py experiment=data_quality corpus=DIR
python ablations/run.py -m data=filtered,unfiltered seed=1,2,3,4,5 corpus=DIR
python ablations/run.py experiment=data_quality corpus=DIR scale=paper hydra.launcher.partition=…

Studies are ``conf/experiment/*.yaml``; ``conf/ablation.yaml`` explains the settings;
``ablations/plan.py`` with the same arguments estimates the cost. Output goes to ``runs/STUDY``
(``output=…``, also in a bucket), see :mod:`ablations.study_files.results`. Run the same command
again for jobs that are missing, interrupted or failed. Exit code 1: a job failed, or nothing could
be compared.
"""

import contextlib
import sys
from typing import Any

import hydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, flag_override

from ablations import compare, report
from ablations.analyses import comparison
from ablations.contrasts import variant_selection
from ablations.errors import exit_on_error
from ablations.reading import read_study
from ablations.study import bucket_mirror, interruption, preflight, progress
from ablations.study.design.jobs import expand, first_batch, job_of, needed, slots_of, threads_of
from ablations.study.execute import execute
from ablations.study_files.results import FAILURE
from winnow import run_log
from winnow.commands import exits, overrides
from winnow.filesystem import storage

_study_lock, _progress_report = contextlib.ExitStack(), contextlib.ExitStack()
"""Locks and mirror of the study's folder, and the progress report; Hydra pickles the callback."""


def end_if_interrupted() -> None:
    """Exit with one line if a stop was requested."""
    if number := interruption.received_signal():
        _progress_report.close()
        print(exits.interruption("run the same command again to resume"), file=sys.stderr)
        sys.exit(128 + number)


class StudyCallback(Callback):
    """Runs once per sweep, before and after its jobs; ``output`` is the path as configured."""

    output = ""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check and declare the study."""
        with exit_on_error():
            self.output = bucket_mirror.use_local_folder(config, _study_lock)
            expanded = expand(config, kwargs["config_name"])
            batch, jobs = first_batch(expanded), needed(expanded)
            study = preflight.check(jobs)  # before anything is written
            _study_lock.enter_context(storage.lock(jobs[0].config.output))
            run_log.write_to(jobs[0].config.output)
            preflight.write(jobs, study)
            for note in study.declared.notes:
                print(f"note: {note}")
            slots = slots_of(jobs[0].config)
            print(progress.first_line(jobs, slots, self.output), flush=True)
            if batch is not None:
                with flag_override(config, "readonly", False):
                    config.hydra.sweeper.max_batch_size = batch  # one after the other
            watch = progress.Watch(jobs, slots)
            watch.start()
            _progress_report.callback(watch.stop)
            interruption.handle_signals(jobs[0].config.output)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        with exit_on_error():
            _progress_report.close()
            end_if_interrupted()
            if not finalize(config.output, self.output):
                sys.exit(1)
            _study_lock.close()


def finalize(folder: str, shown: str) -> bool:
    """Print failures and the verdict; write the comparison and the page.

    ``shown`` is the folder's name in messages. Returns whether all jobs are complete and compared.
    """
    study = read_study(folder)
    declared, complete = study.declared, len(study.runs)
    for key, error in study.failed.items():
        record = storage.join(key.folder(shown), FAILURE)
        print(f"FAILED {key.name}: {error} (traceback in {record})", file=sys.stderr)
    for key in [*study.unfinished, *study.missing]:
        print(f"NOT RUN {key.name}", file=sys.stderr)
    report.write_report(folder)
    print(f"\nPage: {storage.join(shown, report.PAGE)}")
    if not study.runs:
        print("no job is complete: nothing to compare", file=sys.stderr)
        return False
    try:
        study = variant_selection.choose(study)
        result = comparison.compare(study)
    except ValueError as error:
        print(f"not compared: {error}", file=sys.stderr)
        return False
    compare.write(result, storage.join(folder, "comparison"))
    print(f"Tables: {storage.join(shown, 'comparison')}\n\n{compare.render(study, result)}")
    return complete == len(declared.arms) * len(declared.variants) * len(declared.seeds)


@hydra.main(version_base="1.3", config_path="../conf", config_name="ablation")
def main(config: DictConfig) -> None:
    job = job_of(config)
    execute(job, threads_of(job.config))


if __name__ == "__main__":
    run_log.begin()
    with contextlib.closing(run_log), exits.clear(), _study_lock:
        try:
            overrides.run(main, "ablation", sweeps=True)
        except Exception:
            end_if_interrupted()  # launchers raise all kinds of errors when their processes die
            raise
