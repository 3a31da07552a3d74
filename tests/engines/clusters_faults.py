"""Flink and Spark on three machines, one process of which is killed, frozen or cut off.

    sudo python tests/engines/clusters_faults.py --engine flink kill=worker:20 kill=driver:20
    sudo python tests/engines/clusters_faults.py --engine flink --restart freeze=10 cut=10
    sudo python tests/engines/clusters_faults.py --engine spark --speculate freeze=10

- kill=WHAT  kill -9 of the engine's worker, a pool with its Python, a Python worker (python), the
             job_server or the driver, at a moment drawn from the seed, and start it again
- freeze     stop the Python of one machine, on Flink its task manager too, and continue it before
             the run has ended or after; Spark's speculation or Flink's heartbeat moves its tasks
- cut        take one machine's link down for longer than Flink's heartbeat.timeout, then up

Input: every format, intact and damaged, in some 60 tasks, with a known rule and with a solved one
and exact duplicates by turns; each batch sleeps for --pause, so that work lasts and costs nothing.
A run that fails is resumed on the engine, and a copy of it by DirectRunner; both are compared byte
by byte with an undisturbed run of DirectRunner, and once more after all trials, in case something
was written late. After a driver's death its job is cancelled by hand before the copy is made, or,
in every other trial, by --resume, without a copy.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

sys.path.extend(
    str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "tests", "tests/helpers")
)
import engines_clusters
import preloaded
import slow_step
from engines_machines import Machine, in_own_network, machines
from engines_services import ROOT, listens
from engines_usage import members
from faults.scene import MODES, Run, Scene, phase, problems

STARTS = {"flink": engines_clusters.flink, "spark": engines_clusters.spark}
KILLED = ("worker", "pool", "python", "job_server", "driver")
PHASES = ("", "scoring", "scoring", "deciding", "writing the end")
SECONDS = 600
PATIENCE = 120  # seconds after which a user interrupts a run that has lost something
HEARTBEAT = 20.0
SCORING = 6.0  # seconds, at least


@dataclass
class Stage:
    """A cluster, the machines of its workers, and what runs on it."""

    engine: str
    cluster: engines_clusters.Cluster
    others: list[Machine]
    scene: Scene
    more: list[str]
    only_scoring: bool = False
    """Kill only while Python workers run."""
    earlier: set[int] = field(default_factory=set)
    """Python workers of earlier runs, which engines keep for a while."""

    def start(self, mode: str, output: Path, *more: str) -> Run:
        """A run on the cluster."""
        self.earlier = {one for number in range(len(self.others)) for one in self.pythons(number)}
        flags = [*self.cluster.flags, *self.more, *more]
        return Run(self.scene, mode, output, *flags, python=self.scene.python)

    def pythons(self, number: int) -> list[int]:
        """The Python workers that a machine's pool has started."""
        pool = self.cluster.processes[f"pool_{number}"].pid
        return [one for _, one, _ in members({pool: "pool"}) if one != pool]

    def at_work(self) -> list[int]:
        """The machines with Python workers of the last run."""
        new = [set(self.pythons(number)) - self.earlier for number in range(len(self.others))]
        return [number for number, own in enumerate(new) if own]

    def until_at_work(self, run: Run) -> None:
        """Wait until a run has Python workers, or ends."""
        while run.process.poll() is None and not self.at_work():
            time.sleep(0.1)

    def done_twice(self) -> int:
        """How many speculative attempts Spark's last job started."""
        logs = (self.cluster.folder / "events").iterdir()
        lines = max(logs, key=lambda log: log.stat().st_mtime).read_text().splitlines()
        return sum("SparkListenerTaskStart" in one and '"Speculative":true' in one for one in lines)

    def job_server_again(self) -> None:
        """Restart the job server, and wait until it answers."""
        port = int(self.cluster.flags[1].rpartition(":")[2])
        self.cluster.again("job_server")
        self.cluster.until(lambda: listens(port), "the job server")

    def end_jobs(self) -> None:
        """Cancel the jobs that a driver or job server has left, as docs/engines.md says."""
        if self.engine == "spark":  # they end with it
            self.cluster.kill("job_server")
            self.job_server_again()
        for job in self.cluster.ask("jobs").get("jobs", []):
            if job["status"] not in ("FINISHED", "FAILED", "CANCELED"):
                self.cluster.ask(f"jobs/{job['id']}/yarn-cancel")  # a GET that cancels
        self.cluster.until(self.idle, "no job")

    def idle(self) -> bool:
        """Whether no job runs; always True on Spark, which does not tell."""
        over = ("FINISHED", "FAILED", "CANCELED")
        return all(job["status"] in over for job in self.cluster.ask("jobs").get("jobs", []))


def kill(what: str, stage: Stage, output: Path, seed: int) -> tuple[str, list[str]]:
    """Kill -9: what was hit, and what was wrong afterwards."""
    rng = random.Random(f"{what}-{seed}")
    mode = list(MODES)[seed % 2]
    run = stage.start(mode, output)
    _wait(stage, run, mode, rng)
    at_work, hit = stage.at_work(), phase(output, mode)
    number = rng.choice(at_work or [0, 1])
    by_hand = (what, stage.engine) == ("job_server", "flink") or (
        what == "driver" and rng.random() < 0.5
    )
    if what == "driver":
        run.kill()
    elif what == "python":
        for process in stage.pythons(number):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    else:
        victim = what if what == "job_server" else f"{what}_{number}"
        stage.cluster.kill(victim)
        time.sleep(rng.random() * 2)
        stage.job_server_again() if what == "job_server" else stage.cluster.again(victim)
    interrupted = _interrupted(run)
    code = run.finish(SECONDS)
    if by_hand:
        stage.end_jobs()
    ended, wrong = _ending(run, code, by_us=what == "driver" or interrupted)
    ended = "hung, interrupted" if interrupted else ended
    copied = by_hand or what != "driver"
    hit = f"{mode}, {hit}{'' if at_work else ', no Python'}: {ended}"
    hit += "" if copied else ", its job left"
    return hit, wrong or _resumed(stage, mode, output, code, copied)


def freeze(stage: Stage, output: Path, seed: int) -> tuple[str, list[str]]:
    """Stop a machine's Python, and on Flink its task manager; continue them later."""
    rng = random.Random(f"freeze-{seed}")
    mode = list(MODES)[seed % 2]
    run = stage.start(mode, output)
    stage.until_at_work(run)
    time.sleep(rng.random() * SCORING / 2)
    number = rng.choice(stage.at_work() or [0, 1])
    hit, stopped = phase(output, mode), stage.pythons(number)
    if stage.engine == "flink":
        stopped.append(stage.cluster.processes[f"worker_{number}"].pid)
    for process in stopped:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGSTOP)
    late = rng.random() < 0.5
    if late:
        run.finish(SECONDS)
    else:
        time.sleep(HEARTBEAT * (1.5 + rng.random()))
    for process in stopped:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)
    code = run.finish(SECONDS)
    time.sleep(10)  # for what writes late
    ended, wrong = _ending(run, code)
    hit = f"{mode}, {hit}, continued {'after' if late else 'before'} the end: {ended}"
    if stage.engine == "spark":
        hit += f", {'some' if stage.done_twice() else 'no'} tasks tried twice at once"
    return hit, wrong or _resumed(stage, mode, output, code)


def cut(stage: Stage, output: Path, seed: int) -> tuple[str, list[str]]:
    """Take a machine's link down, and up again."""
    rng = random.Random(f"cut-{seed}")
    mode = list(MODES)[seed % 2]
    run = stage.start(mode, output)
    stage.until_at_work(run)
    time.sleep(rng.random() * SCORING / 2)
    hit, machine = phase(output, mode), stage.others[rng.choice(stage.at_work() or [0, 1])]
    machine.link("down")
    time.sleep(HEARTBEAT * (1.2 + rng.random()))
    machine.link("up")
    code = run.finish(SECONDS)
    time.sleep(5)
    ended, wrong = _ending(run, code)
    return f"{mode}, {hit}: {ended}", wrong or _resumed(stage, mode, output, code)


def _wait(stage: Stage, run: Run, mode: str, rng: random.Random) -> None:
    """Wait for a moment of the run that the seed chooses, or its end."""
    target = rng.choice(("scoring",) if stage.only_scoring else PHASES)
    if target == "deciding" and mode == "known rule":  # it decides as it scores
        target = "scoring"
    if target == "scoring":  # begins long after its folder exists
        stage.until_at_work(run)
    else:
        run.wait_for(lambda: not target or phase(run.output, mode) == target)
    time.sleep(rng.random() * (SCORING if target in ("", "scoring") else 0.3))


def _interrupted(run: Run) -> bool:
    """Whether a run hung, and was interrupted."""
    try:
        run.process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        run.process.send_signal(signal.SIGINT)
        return True
    return False


def _ending(run: Run, code: int | None, by_us: bool = False) -> tuple[str, list[str]]:
    """How a run ended, in a word, and what is wrong with that."""
    if code == 0:
        return "ended well", []
    if by_us:
        return "killed", []
    if code is None:
        return "hung", ["it hung"]
    said = run.error()
    print(f"    {said}", flush=True)
    clear = said.endswith("--resume") and "Traceback" not in run.said()
    return "error", [] if clear else [f"no clear error: {run.said()[-1500:]}"]


def _resumed(
    stage: Stage, mode: str, output: Path, code: int | None, copied: bool = True
) -> list[str]:
    """Resume on the engine and, if ``copied``, by DirectRunner; what is wrong with the outputs."""
    if code == 0:
        return problems(stage.scene, mode, output)
    copy = output.with_name(f"{output.name}-copy")
    while copied and output.exists():  # tasks that have lost their engine may still write
        with suppress(shutil.Error):
            shutil.copytree(output, copy)
            break
        shutil.rmtree(copy)
    wrong = []
    runs = {stage.engine: stage.start(mode, output, "--resume")}
    if copied:
        here = Run(stage.scene, mode, copy, "--resume", python=stage.scene.python)
        runs["DirectRunner"] = here
    for name, run in runs.items():
        code = run.finish(SECONDS)
        found = problems(stage.scene, mode, run.output) if code == 0 else [run.said()[-1500:]]
        wrong += [f"resumed by {name} ({code}): {one}" for one in found]
    return wrong if stage.idle() else [*wrong, "a job is left on the engine"]


FAULTS: dict[str, Callable[[Stage, Path, int], tuple[str, list[str]]]] = {
    "freeze": freeze,
    "cut": cut,
    **{f"kill={what}": partial(kill, what) for what in KILLED},
}


def main() -> None:
    """Run the trials."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faults", nargs="+", metavar="FAULT=TIMES", help=", ".join(FAULTS))
    parser.add_argument("--engine", choices=STARTS, required=True)
    parser.add_argument("--speculate", action="store_true", help="Spark repeats slow work")
    parser.add_argument("--restart", action="store_true", help="Flink repeats lost work")
    parser.add_argument("--scoring", action="store_true", help="kill while documents are scored")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds (default: 0.2)")
    parser.add_argument("--seed", type=int, default=0, help="of the first trial (default: 0)")
    parser.add_argument("--folder", type=Path, required=True)
    flags = parser.parse_args()
    faults = {}
    for one in flags.faults:
        name, times = re.fullmatch(r"(.+)[:=](\d+)", one).groups()
        if name not in FAULTS:
            parser.error(f"no fault {name}")
        faults[name] = int(times)
    if reason := engines_clusters.missing(flags.engine):
        sys.exit(reason)
    in_own_network()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave no cluster behind
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GIT_DIR": os.devnull}
    os.environ[slow_step.PAUSE] = str(flags.pause)
    os.environ["JAVA_TOOL_OPTIONS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # starts quickly
    settings: dict[str, object] = {}
    if flags.engine == "flink":
        # A spare slot on each machine, and work for both.
        settings = {"cluster.evenly-spread-out-slots": "true"}
        settings |= {"heartbeat.timeout": int(HEARTBEAT * 1000), "heartbeat.interval": 1000}
    if flags.restart:  # Beam's --number_of_execution_retries does not reach a batch job
        settings |= {"restart-strategy.type": "fixed-delay"}
        settings |= {"restart-strategy.fixed-delay.attempts": 5}
    if flags.speculate:
        settings = {"spark.speculation": "true", "spark.speculation.multiplier": 1.1}
        settings |= {"spark.speculation.quantile": 0.1, "spark.speculation.minTaskRuntime": "1s"}
        events = flags.folder / "cluster" / "events"
        events.mkdir(parents=True, exist_ok=True)
        settings |= {"spark.eventLog.enabled": "true", "spark.eventLog.dir": str(events)}
    shutil.rmtree(flags.folder / "scene", ignore_errors=True)
    scene = Scene.build(flags.folder / "scene", 40)
    config = scene.folder / "slow.yaml"
    config.write_text('{"steps": {"tests.engines.slow_step.Slow": {}}}')
    with (
        preloaded.running(flags.folder / "preloaded") as python,
        machines(2) as places,
        STARTS[flags.engine](flags.folder / "cluster", 2, places, settings, quick=True) as cluster,
    ):
        more = ["--parallelism=2"] if flags.engine == "flink" else []
        scene = replace(scene, python=python, more=(f"--config={config}",))
        stage = Stage(flags.engine, cluster, places[1:], scene, more, flags.scoring)
        # Else the first run counts the pools' helpers as its Python workers.
        cluster.until(lambda: all(stage.pythons(number) for number in range(2)), "the pools")
        bad = _try_all(stage, faults, flags.seed, flags.folder)
    sys.exit(bool(bad))


def _try_all(stage: Stage, faults: dict[str, int], first: int, folder: Path) -> int:
    """Seed by seed; how many trials went wrong."""
    hits: dict[str, Counter[str]] = {name: Counter() for name in faults}
    ended: list[tuple[str, str, Path]] = []
    for seed in range(first, first + max(faults.values())):
        for name, times in faults.items():
            if seed >= first + times:
                continue
            output = folder / name / str(seed)
            begun = time.monotonic()
            hit, wrong = FAULTS[name](stage, output, seed)
            took = f"{time.strftime('%X')}, {time.monotonic() - begun:.0f} s"
            print(f"{took}, {name} {seed}: {hit}: {'; '.join(wrong) or 'byte-equal'}", flush=True)
            hits[name][f"{hit}: {'WRONG' if wrong else 'byte-equal'}"] += 1
            if not wrong:
                ended.append((name, list(MODES)[seed % 2], output))
    late = 0
    for name, mode, output in ended:
        if wrong := problems(stage.scene, mode, output):
            late += 1
            print(f"{name}, {output}, in the end: {'; '.join(wrong)}", flush=True)
    for name, found in hits.items():
        print(f"{stage.engine}, {name}: {found.total()} trials", flush=True)
        for hit, count in sorted(found.items()):
            print(f"    {count:4} {hit}", flush=True)
    return late + sum(n for found in hits.values() for hit, n in found.items() if "WRONG" in hit)


if __name__ == "__main__":
    main()
