"""A small run of the pipeline that is to be disturbed, and what it must come to in the end."""

import contextlib
import os
import pty
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from corpora import documents, fingerprints, write_classifier, write_jsonl
from faults.files import every_format

from pipeline.output.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300
"""How long a run, of some seconds, may take before it counts as hanging."""

MODES: dict[str, list[str]] = {
    "known rule": ["--alpha=2"],
    "solved rule, duplicates": ["--target-fraction=0.3", "--deduplicate"],
}
"""The two graphs of the pipeline: with a known rule, tasks are decided as they are scored."""

NEAR = "near-duplicates"
"""A third mode, tried by kills only."""

_FLAGS = MODES | {NEAR: ["--target-fraction=0.3", "--near-duplicates"]}

PROCESSES = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]


@dataclass(frozen=True)
class Scene:
    """Inputs in every format, some of them damaged, and a classifier, all in one folder."""

    folder: Path
    python: str | Path = sys.executable
    """What starts the runs that nothing disturbs."""
    more: tuple[str, ...] = ()
    """Further flags of every run."""

    @classmethod
    def build(cls, folder: Path, n: int = 120) -> "Scene":
        """Write the files: ``n`` documents in most of them, the same ones in several."""
        rng = random.Random(0)
        for name, data in every_format(n).items():
            path = folder / "web" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            at = rng.randrange(len(data))
            damaged = data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :]
            path.with_name(f"damaged.{name}").write_bytes(damaged)
        for i in range(3):
            write_jsonl(folder / "wiki" / f"{i}.jsonl.gz", documents(n, i, "wiki"))
        write_classifier(folder / "classifier")
        return cls(folder)

    def flags(self, mode: str) -> list[str]:
        """What the command line is told, but for the output."""
        return [
            f"--source=web={self.folder}/web/*",
            f"--source=wiki={self.folder}/wiki/*",
            "--filter=web",
            "--metadata=WARC-Date",
            f"--classifier={self.folder}/classifier",
            "--seed=5",
            "--split-bytes=10000",  # many tasks
            *_FLAGS[mode],
            *self.more,
        ]

    def undisturbed(self, mode: str) -> Path:
        """Where the undisturbed run of a mode goes."""
        return self.folder / "undisturbed" / mode.replace(" ", "_")

    @cached_property
    def expected(self) -> dict[str, dict[str, str]]:
        """The fingerprints of an undisturbed run of each mode but the third."""
        return {mode: self.of_undisturbed(mode) for mode in MODES}

    def of_undisturbed(self, mode: str) -> dict[str, str]:
        """The fingerprints of an undisturbed run, which is made if there was none yet."""
        output = self.undisturbed(mode)
        if not output.exists():
            run = Run(self, mode, output, python=self.python)
            assert run.finish() == 0, run.said()
            check_accounting(output)
        return fingerprints(output)


class Run:
    """One process of ``pipeline/run.py``, as users start it.

    Args:
        more: further flags.
        log: where what it says goes; beside the output if None.
        terminal: let it believe that it writes to a terminal, where it shows its progress.
        prelude: Python code to run first, in the same process.
        python: what to start it with; a worker or a driver that is killed needs one of its own.
    """

    def __init__(
        self,
        scene: Scene,
        mode: str,
        output: Path,
        *more: str,
        log: Path | None = None,
        terminal: bool = False,
        prelude: str = "",
        python: str | Path = sys.executable,
    ) -> None:
        self.output = output
        self._log = log or output.with_name(f"{output.name}.log")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        script = ROOT / "pipeline" / "run.py"
        if prelude:
            code = prelude + _START.format(script=str(script))
            script = self._log.with_suffix(".py")
            script.write_text(code)
        flags = [*scene.flags(mode), f"--output={output}", *more]
        with open(self._log, "wb") as file, contextlib.ExitStack() as stack:
            stderr = stack.enter_context(_terminal(self._log)) if terminal else file
            self.process = subprocess.Popen(
                [python, script, *flags],
                stdout=file,
                stderr=stderr,
                env=os.environ
                | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
                | {"GIT_DIR": os.devnull},  # a commit meanwhile would be another version
                start_new_session=True,  # its workers can be found, and ended, with it
            )

    def said(self) -> str:
        """All it wrote to the terminal."""
        return self._log.read_text(errors="replace")

    def error(self) -> str:
        """Its last word, if that is an error as users see it; empty if it is not."""
        lines = self.said().splitlines()
        return next((line for line in reversed(lines) if ": error: " in line), "")

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        """Whether the condition came true while the process ran."""
        deadline = time.monotonic() + SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.002)
        return condition()

    def kill(self) -> None:
        """End the driver as the kernel would for want of memory."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def kill_all(self) -> None:
        """End the driver and whatever it started."""
        for process in (self.process.pid, *self.workers()):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    def workers(self, word: bytes = b"") -> list[int]:
        """The processes of its session that are alive, but for the driver and the shell.

        ``word`` is in their command lines.
        """
        found = []
        for entry in Path("/proc").iterdir():
            try:
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
                command = (entry / "cmdline").read_bytes()
            except (OSError, ValueError):
                continue
            mine = int(fields[3]) == self.process.pid != int(entry.name) and fields[0] != "Z"
            if mine and word in command and not command.startswith(b"/bin/sh"):
                found.append(int(entry.name))
        return sorted(found)

    def workers_end(self, seconds: float = 60) -> bool:
        """Whether its workers are gone, now or in so many seconds."""
        deadline = time.monotonic() + seconds
        while self.workers() and time.monotonic() < deadline:
            time.sleep(0.1)
        return not self.workers()

    def finish(self, seconds: float = SECONDS) -> int | None:
        """The exit code; None, and everything ended, if it hangs."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            return None


_START = """
import runpy, sys
sys.argv[0] = {script!r}
runpy.run_path({script!r}, run_name="__main__")
"""


@contextlib.contextmanager
def _terminal(log: Path) -> Iterator[int]:
    """The writing end of a terminal; what is written to it is appended to ``log``."""
    reading, writing = pty.openpty()

    def copy() -> None:
        with open(log, "ab") as file, contextlib.suppress(OSError):  # it says so at the end
            while data := os.read(reading, 1 << 12):
                file.write(data)
        os.close(reading)

    threading.Thread(target=copy, daemon=True).start()
    try:
        yield writing
    finally:
        os.close(writing)


def phase(output: Path, mode: str) -> str:
    """How far a run has come, from what is in its folder."""
    if (output / "manifest.json").exists():
        return "cleaning" if (output / "_work").exists() else "finished"
    if (output / "statistics").exists():
        return "writing the end"
    if mode != "known rule" and (output / "shards").exists():
        return "deciding"
    return "scoring" if (output / "_work").exists() else "starting"


def problems(scene: Scene, mode: str, output: Path) -> list[str]:
    """How a finished output differs from the undisturbed one, and what was left behind."""
    expected, found = scene.of_undisturbed(mode), fingerprints(output)
    names = sorted(set(expected) | set(found))
    out = [f"{name} differs" for name in names if expected.get(name) != found.get(name)]
    folders = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_dir()}
    strangers = folders - {os.path.dirname(name) for name in expected}
    return out + [f"{name}/ is left behind" for name in sorted(strangers)]


def check_accounting(output: Path) -> None:
    """Compare the manifest's accounting with the rows and lines that are really there.

    Raises:
        AssertionError: they differ.
    """
    manifest = read_manifest(str(output))
    rows: dict[str, int] = {}
    for path in (output / "shards").iterdir():
        table = pa.ipc.open_file(str(path)).read_all()
        for source in table["source"].to_pylist():
            rows[source] = rows.get(source, 0) + 1
    for source, counts in manifest["accounting"].items():
        lines = sum(
            len(path.read_bytes().splitlines())
            for path in (output / "quarantine").glob(f"data-{source}-*.jsonl")
        )
        assert counts["read"] == rows[source] + lines, (source, counts, rows, lines)
        assert counts.get("quarantined", 0) == lines
        assert counts["read"] == sum(n for name, n in counts.items() if name != "read")
