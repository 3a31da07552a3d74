r"""Trains every arm of a study with every seed, evaluates, compares; resumes where it stopped.

python ablations/run.py experiment=data_quality corpus=DIR
python ablations/run.py -m data=filtered,unfiltered seed=1,2,3,4,5 corpus=DIR
python ablations/run.py experiment=data_quality corpus=DIR scale=paper hydra.launcher.partition=…

Studies are ``conf/experiment/*.yaml``; ``conf/ablation.yaml`` explains the settings;
``ablations/plan.py`` with the same arguments says beforehand what it will take. Everything goes to
``runs/STUDY`` (``output=…``, also in a bucket), see :mod:`ablations.study_files.results`. The same
command again runs jobs that are missing, interrupted or failed. Exit code 1: a job failed, or
nothing could be compared.
"""

import contextlib
import sys
from typing import Any

import hydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, flag_override

from ablations.errors import exit_on_error
from ablations.study import in_bucket, interruption, opening, progress
from ablations.study.closing import close_study
from ablations.study.design.jobs import expand, first_batch, job_of, needed, slots_of, threads_of
from ablations.study.execute import execute
from winnow import run_log
from winnow.commands import endings, overrides
from winnow.filesystem import storage

_held, _watched = contextlib.ExitStack(), contextlib.ExitStack()
"""The lock and the mirror of the study's folder, and the progress report. Not fields of the
callback, which Hydra pickles."""


def end_if_interrupted() -> None:
    """Exit with one line if a stop was requested."""
    if number := interruption.heard():
        _watched.close()
        print(endings.interruption("run the same command again to go on"), file=sys.stderr)
        sys.exit(128 + number)


class StudyCallback(Callback):
    """What happens once per sweep, before and after its jobs; ``output`` is as it was given."""

    output = ""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check and declare the study."""
        with exit_on_error():
            self.output = in_bucket.place(config, _held)
            expanded = expand(config, kwargs["config_name"])
            batch, jobs = first_batch(expanded), needed(expanded)
            study = opening.check(jobs)  # before anything is written
            _held.enter_context(storage.lock(jobs[0].config.output))
            run_log.write_to(jobs[0].config.output)
            opening.write(jobs, study)
            for note in study.declared.notes:
                print(f"note: {note}")
            slots = slots_of(jobs[0].config)
            print(progress.opening_line(jobs, slots, self.output), flush=True)
            if batch is not None:
                with flag_override(config, "readonly", False):
                    config.hydra.sweeper.max_batch_size = batch  # one after the other
            watch = progress.Watch(jobs, slots)
            watch.start()
            _watched.callback(watch.stop)
            interruption.listen(jobs[0].config.output)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compare, and report."""
        with exit_on_error():
            _watched.close()
            end_if_interrupted()
            if not close_study(config.output, self.output):
                sys.exit(1)
            _held.close()


@hydra.main(version_base="1.3", config_path="../conf", config_name="ablation")
def main(config: DictConfig) -> None:
    """Do one job of the sweep."""
    job = job_of(config)
    execute(job, threads_of(job.config))


if __name__ == "__main__":
    run_log.begin()
    with contextlib.closing(run_log), endings.clear(), _held:
        try:
            overrides.run(main, "ablation", sweeps=True)
        except Exception:
            end_if_interrupted()  # launchers raise all kinds of errors when their processes end
            raise
