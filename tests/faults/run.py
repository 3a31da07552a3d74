"""Try faults many times, and print how often a resumed run comes to what an undisturbed one gives.

python tests/faults/run.py kill=50 near=12 crash=200 worker=10 orphans=12 hang=12 disk=20 \
        change=32 clock=16 two=12 mutate=100000

Needs the extra [dev]. Disks need root (they are mounted in memory). Everything happens in a folder
of its own under the system's temporary folder; with --folder it stays there to be looked at.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parents[1]), str(HERE.parent), *sys.path]

from faults import crashes, mutations, trials  # noqa: E402
from faults.scene import Scene  # noqa: E402

FAULTS: dict[str, trials.Fault] = {
    "kill": trials.kill,
    "near": trials.kill_near,
    "crash": crashes.crash,
    "worker": trials.kill_worker,
    "orphans": trials.kill_among_workers,
    "hang": trials.hang,
    "disk": trials.full_disk,
    "change": trials.change,
    "clock": trials.clock,
    "two": trials.two_runs,
}
MUTATE = "mutate"


def main(arguments: Sequence[str]) -> int:
    """Try what is asked for; the number of trials that went wrong."""
    parser = argparse.ArgumentParser(
        prog="tests/faults/run.py",
        description="\n".join(f"{name}: {fault.__doc__}" for name, fault in FAULTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("faults", nargs="+", type=_times, metavar="FAULT=TIMES")
    parser.add_argument("--seed", type=int, default=0, help="of the first trial of each fault")
    parser.add_argument("--folder", type=Path, help="where to work; kept")
    chosen = parser.parse_args(arguments)
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    bad = 0
    try:
        scene = Scene.build(folder / "scene")
        for name, times in chosen.faults:
            seeds = range(chosen.seed, chosen.seed + times)
            bad += _mutate(seeds) if name == MUTATE else _try(name, scene, folder, seeds)
    finally:
        if chosen.folder is None:
            shutil.rmtree(folder)
    return bad


def _times(text: str) -> tuple[str, int]:
    name, _, times = text.partition("=")
    if name not in (*FAULTS, MUTATE) or not times.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no FAULT=TIMES")
    return name, int(times)


def _try(name: str, scene: Scene, folder: Path, seeds: range) -> int:
    start = time.monotonic()
    hits: Counter[str] = Counter()
    said: Counter[str] = Counter()
    told = silent = recovered = bad = 0
    for seed in seeds:
        output = folder / name / str(seed)
        try:
            trial = FAULTS[name](scene, output, seed)
        except PermissionError as error:
            print(f"{name}: skipped: {error}")
            return 0
        hits[trial.hit] += 1
        told += trial.told is True
        silent += trial.told is False
        recovered += trial.recovered
        said += Counter([trial.said] if trial.said else [])
        if trial.wrong:
            bad += 1
            print(f"{name}, seed {seed}, {trial.hit}: {'; '.join(trial.wrong[:5])}", flush=True)
        else:
            shutil.rmtree(output, ignore_errors=True)
    tried = len(seeds)
    print(
        f"{name}: tried {tried}, recovered {recovered}, byte-equal {tried - bad}, clear error"
        f" {told} of {told + silent}, {time.monotonic() - start:.0f} s"
    )
    for hit, count in [*sorted(hits.items()), *said.most_common(5)]:
        print(f"    {count:4} {hit}")
    sys.stdout.flush()
    return bad


def _mutate(seeds: range) -> int:
    start = time.monotonic()
    report = mutations.run(seeds)
    for seed, name, what in report.failures:
        print(f"{MUTATE}, seed {seed}, {name}: {what}")
    print(
        f"{MUTATE}: tried {len(seeds):,}, failed {len(report.failures)}, largest process"
        f" {report.peak_bytes / 1e6:.0f} MB, {time.monotonic() - start:.0f} s"
    )
    for outcome, count in sorted(report.outcomes.items()):
        print(f"    {count:7,} {outcome}")
    return len(report.failures)


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])  # for the processes that it starts
    sys.exit(1 if main(sys.argv[1:]) else 0)
