"""CPU time and memory of sessions of processes, read from /proc while they run."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_EVERY = 0.3


@dataclass
class Usage:
    """What the processes of each session have used since the watch began, by the session's name."""

    _cpu: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    _peak: dict[tuple[str, int], int] = field(default_factory=dict)

    def seen(self, name: str, process: int, cpu: float, peak: int) -> None:
        """Note what a process has used by now."""
        self._cpu.setdefault((name, process), [cpu, cpu])[1] = cpu
        self._peak[name, process] = max(peak, self._peak.get((name, process), 0))

    def cpu(self, name: str) -> float:
        """CPU seconds of all processes of a session."""
        return sum(end - begin for (of, _), (begin, end) in self._cpu.items() if of == name)

    def peak(self, name: str) -> int:
        """Resident bytes of its largest process."""
        return max((peak for (of, _), peak in self._peak.items() if of == name), default=0)

    def names(self) -> list[str]:
        """The sessions."""
        return sorted({name for name, _ in self._cpu})


def members(sessions: Mapping[int, str]) -> Iterator[tuple[str, int, list[str]]]:
    """Session, number and /proc/N/stat (from the state on) of each process of these sessions."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            number = int(entry.name)
            fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            if (name := sessions.get(int(fields[3]))) and fields[0] != "Z":
                yield name, number, fields


@contextlib.contextmanager
def watched(sessions: Callable[[], Mapping[int, str]]) -> Iterator[Usage]:
    """Watch the sessions, which are named by their number, until the end.

    The last third of a second of a process that ends before is not seen.
    """
    usage, over = Usage(), threading.Event()

    def look() -> None:
        for name, number, fields in members(sessions()):
            with contextlib.suppress(OSError, StopIteration):
                status = Path(f"/proc/{number}/status").read_text().splitlines()
                peak = next(int(line.split()[1]) for line in status if line[:6] == "VmHWM:")
                cpu = (int(fields[11]) + int(fields[12])) / _TICK
                usage.seen(name, number, cpu, peak * 1024)

    def watch() -> None:
        look()
        while not over.wait(_EVERY):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield usage
    finally:
        over.set()
        thread.join()
        look()
