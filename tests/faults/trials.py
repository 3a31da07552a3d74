"""Each fault, once: a run is disturbed at a moment drawn from the seed, resumed, and compared."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corpora import documents, fingerprints, write_classifier, write_jsonl
from faults.scene import MODES, NEAR, PROCESSES, Run, Scene, phase, problems

PATIENCE = 20.0
"""Seconds for which a run with a stopped worker is watched."""


@dataclass(frozen=True)
class Trial:
    """What became of one fault.

    ``hit`` is what it hit. ``told`` is whether the user was told what is wrong in one line; None
    where nobody was left to tell; ``said`` is that line. ``wrong`` is what was not as it should be
    after all.
    """

    hit: str
    told: bool | None
    recovered: bool
    wrong: list[str]
    said: str = ""


Fault = Callable[[Scene, Path, int], Trial]
"""Takes the scene, a place for the output, and the seed."""


def resumed(
    scene: Scene, mode: str, output: Path, *more: str, terminal: bool = False
) -> tuple[bool, list[str]]:
    """Resume as a user would; whether that succeeds, and what is wrong with the output then."""
    more = ("--resume", *more)
    run = Run(scene, mode, output, *more, terminal=terminal, python=scene.python)
    code = run.finish()
    if code != 0:
        return False, [f"resume ended with {code}: {run.error() or run.said()[-500:]}"]
    return True, problems(scene, mode, output)


def kill(scene: Scene, output: Path, seed: int) -> Trial:
    """Kill -9 of the driver, up to three times before a run may finish; some on a terminal."""
    return _killed(scene, output, seed, list(MODES)[seed % 2])


def kill_near(scene: Scene, output: Path, seed: int) -> Trial:
    """The same with near-duplicates, by two threads, or in every other trial two processes."""
    return _killed(scene, output, seed, NEAR, *(PROCESSES if seed % 2 else PROCESSES[1:]))


def _killed(scene: Scene, output: Path, seed: int, mode: str, *more: str) -> Trial:
    rng = random.Random(seed)
    terminal = seed % 3 == 0
    hits = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        run = Run(scene, mode, output, "--resume", *more, terminal=terminal)
        target = rng.choice(("scoring", "scoring", "deciding", "writing the end", "cleaning", ""))
        run.wait_for(lambda target=target: phase(output, mode) == target or not target)
        time.sleep(rng.random() * {"scoring": 1.0, "": 4.0}.get(target, 0.2))
        if run.process.poll():
            return Trial(phase(output, mode), True, False, [f"it ended by itself: {run.error()}"])
        run.kill()
        hits.append(phase(output, mode))
    if hits[-1] not in ("starting", "cleaning", "finished"):
        run = Run(scene, mode, output, python=scene.python)
        if run.finish() != 1 or "--resume" not in run.error():
            return Trial(hits[-1], False, False, [f"without --resume: {run.said()[-500:]}"])
    recovered, wrong = resumed(scene, mode, output, *more, terminal=terminal)
    return Trial(hits[-1], None, recovered, wrong)


def kill_worker(scene: Scene, output: Path, seed: int) -> Trial:
    """Kill -9 of one of two worker processes; then the run fails, or copes without it."""
    rng = random.Random(seed)
    mode = list(MODES)[seed % 2]
    run = Run(scene, mode, output, *PROCESSES)
    victim = _a_worker(run, output, mode, rng)
    hit = phase(output, mode)
    if victim is None:
        return Trial(hit, None, run.finish() == 0, problems(scene, mode, output))
    os.kill(victim, signal.SIGKILL)
    if run.finish() == 0:
        return Trial(f"{hit}, coped", None, True, problems(scene, mode, output))
    said = run.error()
    recovered, wrong = resumed(scene, mode, output)
    return Trial(hit, "worker" in said, recovered, wrong, said)


def kill_among_workers(scene: Scene, output: Path, seed: int) -> Trial:
    """Kill -9 of the driver alone; its workers go with it. Most resumes are with another config.

    In every other trial a worker is stopped before, and goes on, if it still can, after the resume.
    """
    mode = list(MODES)[seed % 2]
    run = Run(scene, mode, output, *PROCESSES)
    victim = _a_worker(run, output, mode, random.Random(seed))
    stopped = victim is not None and seed % 4 < 2
    if stopped:
        os.kill(victim, signal.SIGSTOP)
    run.kill()
    other = ["--write=kept", "--shard-bytes=3000"] if seed % 8 < 6 else []
    hit = f"{phase(output, mode)}, {'another config' if other else 'same config'}"
    hit += ", one was stopped" * stopped
    recovered, wrong = _resumed_as(scene, mode, output, other)
    left = run.workers()
    if stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGCONT)
    if recovered and left:
        run.workers_end()
        # The last of the workers may have written since.
        wrong = [f"{len(left)} workers were left", *_differences(scene, mode, output, other)]
    return Trial(hit, None, recovered, wrong)


def _resumed_as(scene: Scene, mode: str, output: Path, other: list[str]) -> tuple[bool, list[str]]:
    """Resume with these flags too; whether that succeeds, and how it differs from a fresh run."""
    run = Run(scene, mode, output, "--resume", *other, python=scene.python)
    if run.finish() == 0:
        return True, _differences(scene, mode, output, other)
    if "finished run" in run.error():
        return True, problems(scene, mode, output)  # it had finished before the kill
    return False, [f"resume failed: {run.error() or run.said()[-500:]}"]


def _differences(scene: Scene, mode: str, output: Path, other: list[str]) -> list[str]:
    """How an output differs from that of a fresh run with these flags too."""
    if not other:
        return problems(scene, mode, output)
    fresh = scene.folder / "fresh" / " ".join([mode, *other]).replace(" ", "_")
    if not (fresh / "manifest.json").exists():
        run = Run(scene, mode, fresh, *other, python=scene.python)
        assert run.finish() == 0, run.said()
    return _differ(fresh, output)


def _differ(fresh: Path, output: Path) -> list[str]:
    expected, found = fingerprints(fresh), fingerprints(output)
    names = sorted(set(expected) | set(found))
    return [f"{name} differs" for name in names if expected.get(name) != found.get(name)]


STALL = "--stall-minutes=0.5"

_HANGS = """
import ctypes, random
from pipeline.core import task
calls, at, real = iter(range(10**9)), {at}, task.decide_batch
def hang(*arguments):
    if next(calls) == at:
        {library}(None).pause()
    return real(*arguments)
task.decide_batch = hang
"""


def hang(scene: Scene, output: Path, seed: int) -> Trial:
    """A worker hangs for good: a process that is stopped, or a thread that waits in C code.

    Every fourth trial each: a process that goes on later; one that does not; a thread; a thread
    that holds Python's lock, too.
    """
    mode = list(MODES)[seed // 4 % 2]
    rng = random.Random(seed)
    if seed % 4 < 2:
        return _hanging_process(scene, mode, output, rng, for_good=seed % 4 == 1)
    library = ("ctypes.CDLL", "ctypes.PyDLL")[seed % 2]
    run = Run(
        scene, mode, output, STALL, prelude=_HANGS.format(at=rng.randrange(50), library=library)
    )
    code = run.finish()
    hit = f"{phase(output, mode)}, a thread" + ", holding Python's lock" * (seed % 2)
    if code != 1:
        return Trial(hit, False, False, [f"it ended with {code}: {run.said()[-500:]}"])
    said = run.error()
    told = ("--resume" in said and "scene/" in said) or " in hang\n" in run.said()
    recovered, wrong = resumed(scene, mode, output)
    return Trial(hit, told, recovered, wrong)


def _hanging_process(
    scene: Scene, mode: str, output: Path, rng: random.Random, for_good: bool
) -> Trial:
    run = Run(scene, mode, output, *PROCESSES, *[STALL] * for_good)
    victim = _a_worker(run, output, mode, rng)
    hit = phase(output, mode)
    if victim is None:
        return Trial(hit, None, run.finish() == 0, problems(scene, mode, output))
    os.kill(victim, signal.SIGSTOP)
    if not for_good:
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGCONT)
        recovered = run.finish() == 0
        wrong = problems(scene, mode, output) if recovered else [run.said()[-500:]]
        return Trial(f"{hit}, a process that went on", None, recovered, wrong)
    code = run.finish()
    hit += ", a process"
    if code == 0:
        return Trial(f"{hit}, not needed any more", None, True, problems(scene, mode, output))
    said = run.error()
    left = [] if run.workers_end(5) else ["workers are left"]
    recovered, wrong = resumed(scene, mode, output)
    wrong += left + ([f"it ended with {code}"] if code != 1 else [])
    return Trial(hit, "--resume" in said, recovered, wrong)


def _a_worker(run: Run, output: Path, mode: str, rng: random.Random) -> int | None:
    """Wait until the run is somewhere in its work; one of its Python workers, if any is left."""
    run.wait_for(lambda: phase(output, mode) == "scoring" and len(run.workers()) > 1)
    target = rng.choice(("scoring", "scoring", "deciding"))
    run.wait_for(lambda: phase(output, mode) == target and _shards(output) > rng.randrange(30))
    return rng.choice([None, *run.workers(b"pipeline.beam.worker")][1:] or [None])


def _shards(output: Path) -> int:
    return sum(1 for folder in ("shards", "_work/scored") for _ in (output / folder).glob("*"))


def full_disk(scene: Scene, output: Path, seed: int) -> Trial:
    """A disk too small, by a part that is drawn; the error names a path on it. Then it grows.

    Raises:
        PermissionError: only root may mount.
    """
    mode = list(MODES)[seed % 2]
    _ = scene.expected  # the undisturbed runs are made
    whole = sum(p.stat().st_size for p in scene.undisturbed(mode).rglob("*") if p.is_file())
    size = int(whole * random.Random(seed).uniform(0.05, 1.1))
    with small_disk(output.parent / f"{output.name}.disk", size) as disk:
        place = disk / "scored"
        log = output.with_name(f"{output.name}.log")
        run = Run(scene, mode, place, log=log, python=scene.python)
        code = run.finish()
        hit = phase(place, mode)
        if code == 0:
            return Trial("it was enough", None, True, problems(scene, mode, place))
        wrong = [f"{path} is left behind" for path in place.rglob(".tmp-*")]
        if (place / "manifest.json").exists() and hit != "cleaning":
            wrong.append("there is a manifest")
        said = run.error()
        told = "No space left" in said and str(disk) in said
        subprocess.run(["mount", "-o", "remount,size=1G", str(disk)], check=True)
        recovered, more = resumed(scene, mode, place)
        return Trial(hit, told, recovered, wrong + more, said.replace(str(disk), "DISK"))


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system in memory of so many bytes.

    Raises:
        PermissionError: it may not be mounted here.
    """
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={max(size >> 12, 1) << 12}", "none", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


CHANGES = ("content of the same size", "size", "removed", "added", "times only", "another format")
CHANGES += ("classifier", "config")


def change(scene: Scene, output: Path, seed: int) -> Trial:
    """Something changes between the kill and the resume: what comes out is of the new state."""
    rng = random.Random(seed)
    mode, kind = list(MODES)[seed // len(CHANGES) % 2], CHANGES[seed % len(CHANGES)]
    mine = Scene(output.parent / f"{output.name}.scene")
    for name in ("web", "wiki", "classifier"):
        shutil.copytree(scene.folder / name, mine.folder / name)
    run = Run(mine, mode, output)
    run.wait_for(lambda: _shards(output) > rng.randrange(40))
    if rng.random() < 0.3:
        run.wait_for(lambda: phase(output, mode) not in ("scoring", "deciding"))
    run.kill()
    hit = f"{kind}, {phase(output, mode)}"
    more = _make(kind, mine)
    run = Run(mine, mode, output, "--resume", *more)
    code = run.finish()
    if code == 1 and "finished run" in run.error():
        return Trial(hit, True, True, [])  # it had finished before the kill
    if code != 0:
        return Trial(hit, bool(run.error()), False, [f"resume ended with {code}: {run.said()}"])
    fresh = Run(mine, mode, output.with_name(f"{output.name}.fresh"), *more)
    if fresh.finish() != 0:
        return Trial(hit, None, False, [f"a fresh run fails: {fresh.said()}"])
    return Trial(hit, None, True, _differ(fresh.output, output))


def _make(kind: str, scene: Scene) -> list[str]:
    """Make a change; the flags that the resume is given too."""
    path = scene.folder / "web" / "one.jsonl.gz"
    match kind:
        case "content of the same size":
            path = scene.folder / "web" / "plain.jsonl"
            path.write_bytes(path.read_bytes().replace(b"river", b"ravin"))
        case "size":
            write_jsonl(path, documents(77, 77))
        case "removed":
            path.unlink()
        case "added":
            write_jsonl(path.with_name("added.jsonl.gz"), documents(20, 20))
        case "times only":
            for at, file in enumerate(sorted((scene.folder / "web").iterdir())):
                os.utime(file, (0, 0) if at % 2 else (2**33, 2**33))
        case "another format":
            path.write_bytes((scene.folder / "web" / "lz4.arrow").read_bytes())
        case "classifier":
            shutil.rmtree(scene.folder / "classifier")
            write_classifier(scene.folder / "classifier", seed=1)
        case "config":
            return ["--write=kept", "--shard-bytes=3000"]
    return []


_JUMPS = """
import random, time
rng, real, start = random.Random({seed}), time.time, time.monotonic()
jump, moment = rng.uniform(-1e9, 1e9), start + rng.uniform(0, 8)
time.time = lambda: real() + (jump if time.monotonic() > moment else 0)
time.time_ns = lambda: int(time.time() * 1e9)
"""

_JUMP_AT_START = """
import grpc, time
real, ready = time.time, grpc.channel_ready_future
def jumping(channel):
    future = ready(channel)
    wait = future.result
    def result(timeout):
        readings = iter([real()])
        time.time = lambda: next(readings, real() + 1e9)
        return wait(timeout)
    future.result = result
    return future
grpc.channel_ready_future = jumping
"""


def clock(scene: Scene, output: Path, seed: int) -> Trial:
    """A clock that jumps by years at some moment, and inputs from 1970 and 2242.

    In every fourth trial that moment is when Beam waits for its worker to start.
    """
    mode = list(MODES)[seed % 2]
    for at, path in enumerate(sorted((scene.folder / "web").iterdir())):
        os.utime(path, (0, 0) if (at + seed) % 2 else (2**33, 2**33))
    jumps = _JUMP_AT_START if seed % 4 == 3 else _JUMPS.format(seed=seed)
    run = Run(scene, mode, output, STALL, prelude=jumps, python=scene.python)
    if run.finish() == 0:
        return Trial("nobody noticed", None, True, problems(scene, mode, output))
    said = run.error()
    recovered, wrong = resumed(scene, mode, output)
    return Trial("it ended the run", "--resume" in said, recovered, wrong, said)


def two_runs(scene: Scene, output: Path, seed: int) -> Trial:
    """Two runs into one output at once, or one while another is being killed."""
    rng = random.Random(seed)
    mode = list(MODES)[seed % 2]
    first = Run(scene, mode, output, "--resume")
    if seed % 4 >= 2:
        first.wait_for(lambda: phase(output, mode) == "scoring")
    log = output.with_name(f"{output.name}.second.log")
    second = Run(scene, mode, output, "--resume", log=log)
    wrong = []
    if seed % 4 < 2:
        codes = [first.finish(), second.finish()]
        refused = [run.error() for run, code in zip((first, second), codes, strict=True) if code]
        told = all("another run is writing" in error for error in refused) if refused else None
        hit = f"at once, {len(refused)} refused"
        wrong = [] if 0 in codes else ["no run finished"]
    else:
        time.sleep(rng.random() * 4)
        first.kill()
        code = second.finish()
        told = "another run is writing" in second.error() if code else None
        hit = f"one is killed, the other {'goes on' if code == 0 else 'refused'}"
    recovered, more = resumed(scene, mode, output)
    return Trial(hit, told, recovered, wrong + more)
