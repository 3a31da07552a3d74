"""A study's progress, read from its folder: jobs done, running and failed, and the time left."""

import dataclasses
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, TextIO

from ablations.study import interruption
from ablations.study.design.jobs import Job
from ablations.study.design.trunk import IDENTITY
from ablations.study_files.results import FAILURE, RESULT
from model.training.metrics_log import METRICS
from winnow import run_log
from winnow.commands.console import REFRESH, REPEAT, duration
from winnow.filesystem import storage

TAIL_BYTES = 1 << 18
"""More than the longest line of metrics.jsonl."""

MIN_TRAINED = 10.0
"""Seconds of training before an estimate uses its speed."""


@dataclass(frozen=True)
class JobState:
    """The state of a job: ``fraction`` of the steps are done, in ``trained`` seconds.

    ``started`` and ``ended`` are in seconds since the epoch; None if before this run, or not yet.
    """

    name: str
    flops: float
    complete: bool = False
    failed: bool = False
    started: float | None = None
    ended: float | None = None
    fraction: float = 0.0
    trained: float = 0.0
    message: str = ""

    @property
    def running(self) -> bool:
        return self.started is not None and not self.complete and not self.failed

    def seconds(self, now: float) -> float | None:
        """Seconds from start to end, estimated if still running; None if unknown."""
        if self.started is None or self.failed:
            return None
        if self.ended is not None:
            return self.ended - self.started
        if self.trained < MIN_TRAINED:
            return None
        return max(self.trained, now - self.started) + self.trained * (1 / self.fraction - 1)


def time_left(states: Sequence[JobState], now: float, slots: int) -> float | None:
    """Seconds until all jobs are done, ``slots`` at a time; None while unknown.

    Pending jobs are assumed to run at the speed of the others.
    """
    rates = [seconds / s.flops for s in states if (seconds := s.seconds(now)) is not None]
    if not rates:
        return None
    rate = mean(rates)
    left = 0.0
    for s in states:
        if s.running and s.trained >= MIN_TRAINED:
            left += s.trained * (1 / s.fraction - 1)
        elif not s.complete and not s.failed:
            left += max(0.0, rate * s.flops - (now - s.started if s.started else 0.0))
    return left / slots


def summary(states: Sequence[JobState], now: float, slots: int) -> str:
    """One line about all jobs."""
    done, running = sum(s.complete for s in states), sum(s.running for s in states)
    parts = [f"{done} done", f"{running} running"]
    if failed := sum(s.failed for s in states):
        parts.append(f"{failed} failed")
    left = time_left(states, now, slots)
    parts.append("time left unknown" if left is None else f"about {duration(left)} left")
    return f"{len(states)} jobs: {', '.join(parts)}"


class Watch(threading.Thread):
    """Reports progress on standard error, and each finished job on standard output.

    On a terminal it redraws a block of lines; elsewhere it prints lines every half minute.
    """

    def __init__(self, jobs: Sequence[Job], slots: int) -> None:
        super().__init__(daemon=True, name="progress")
        self._jobs = [(job, job.flops) for job in jobs]
        self._slots = slots
        self._since = time.time()
        self._terminal = sys.stderr.isatty()
        self._lines = 0
        self._ended = threading.Event()
        self._reported: set[str] = set()

    def run(self) -> None:
        estimated, stopping, shown = False, False, time.monotonic()
        while not self._ended.wait(REFRESH):
            if interruption.received_signal() and not stopping:
                stopping = True
                self._print("stopping: saving running jobs (again to exit at once)", sys.stderr)
            now = time.time()
            states = self._states()
            self._report_ends(states)
            left = time_left(states, now, self._slots)
            if left is not None and not estimated:
                estimated = True
                jobs = sum(not s.complete for s in states)
                self._print(f"{jobs} jobs, about {duration(left)} on this machine")
            if self._terminal or time.monotonic() - shown >= REPEAT:
                shown = time.monotonic()
                running = [f"  {s.name}: {s.message}" for s in states if s.running]
                self._show([summary(states, now, self._slots), *running])

    def stop(self) -> None:
        """Clear the block and report the last finished jobs."""
        self._ended.set()
        self.join()
        self._report_ends(self._states())
        self._wipe()

    def _states(self) -> list[JobState]:
        return [job_state(job, flops, self._since) for job, flops in self._jobs]

    def _report_ends(self, states: Sequence[JobState]) -> None:
        for s in states:
            if s.ended is not None and s.name not in self._reported:
                self._reported.add(s.name)
                self._print(f"{s.name}: {s.message}")

    def _print(self, text: str, file: TextIO | None = None) -> None:
        self._wipe()
        print(text, file=file, flush=True)

    def _show(self, lines: Sequence[str]) -> None:
        self._wipe()
        if self._terminal:
            size = shutil.get_terminal_size()
            lines = [line[: size.columns - 1] for line in lines[: size.lines - 1]]
            self._lines = len(lines)
        stream = run_log.terminal(sys.stderr) if self._terminal else sys.stderr
        stream.write("\n".join([*lines, ""]))
        stream.flush()

    def _wipe(self) -> None:
        if self._lines:
            stream = run_log.terminal(sys.stderr)
            stream.write(f"\x1b[{self._lines}F\x1b[J")
            stream.flush()
            self._lines = 0


def first_line(jobs: Sequence[Job], slots: int, output: str) -> str:
    """The first line of a run; this machine's speed is not known yet."""
    config = jobs[0].config
    seconds = config.hardware.published_seconds(sum(job.flops for job in jobs))
    if seconds is None:
        return f"{len(jobs)} jobs, {slots} at once: {output}"
    return (
        f"{len(jobs)} jobs, about {duration(seconds)} one after the other at the published speed of"
        f" {config.hardware.devices} x {config.hardware.accelerator}: {output}"
    )


def job_state(job: Job, flops: float, since: float) -> JobState:
    """The state of a job; this run started at ``since`` (seconds since the epoch)."""
    result, failure = (os.path.join(job.folder, name) for name in (RESULT, FAILURE))
    started = _changed(os.path.join(job.folder, IDENTITY), since)
    ended, failed = _changed(result, since), _changed(failure, since)
    if os.path.exists(result):
        if started is None or ended is None:
            return JobState(job.name, flops, complete=True, fraction=1.0)
        heldout = storage.read_json(result)["heldout"]
        message = ", ".join(f"{name} {bits:.4f}" for name, bits in heldout.items())
        message += f" bits per byte, {duration(ended - started)}"
        return JobState(job.name, flops, True, False, started, ended, 1.0, message=message)
    if failed is not None:
        message = f"FAILED: {storage.read_json(failure)['error']}"
        return JobState(job.name, flops, False, True, started, failed, message=message)
    if started is None:
        return JobState(job.name, flops)
    state = JobState(job.name, flops, started=started, message="starting")
    if row := _last_row(os.path.join(job.folder, "training", METRICS), started):
        step, steps = row["step"], job.config.steps
        message = f"step {step:,} of {steps:,}" if step < steps else "evaluating"
        about = {"fraction": step / steps, "trained": row["seconds"], "message": message}
        return dataclasses.replace(state, **about)
    return state


def _changed(path: str, since: float) -> float | None:
    """The modification time of a file; None if before ``since``."""
    try:
        changed = os.stat(path).st_mtime
    except FileNotFoundError:
        return None
    return changed if changed >= since else None


def _last_row(path: str, started: float) -> dict[str, Any] | None:
    """The last complete line of metrics.jsonl, if written since the job started."""
    if _changed(path, started) is None:
        return None
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]
    return json.loads(lines[-1]) if lines else None
