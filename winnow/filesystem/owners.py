"""Owner files: locks for file systems without locks.

Kernel locks end with their process, but Lustre has them only if mounted with ``flock``, NFS only
with its lock service. Exclusive file creation works everywhere, but the file outlives a killed
process. The next process takes it over if the owner is certainly dead: on the same machine, or in
the same Slurm job after a requeue. Otherwise a person has to delete the file.
"""

import contextlib
import dataclasses
import errno
import json
import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WITHOUT_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP})
"""Errors of ``flock`` on file systems without locks."""


@dataclass(frozen=True)
class Owner:
    """A process: its machine, start time (ticks since boot) and Slurm job; ``token`` is unique."""

    host: str
    boot: str
    pid: int
    begun: str
    job: str
    restart: int
    token: str

    @classmethod
    def of(cls, pid: int) -> "Owner":
        """A process of this machine as an owner."""
        return cls(
            socket.gethostname(),
            _boot(),
            pid,
            _begun(pid),
            os.environ.get("SLURM_JOB_ID", ""),
            int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            uuid.uuid4().hex,
        )

    def has_ended(self) -> bool:
        """Whether it has certainly ended; False if unknown."""
        if (self.host, self.boot) == (socket.gethostname(), _boot()):
            return not self.begun or _begun(self.pid) != self.begun
        restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        same_job = bool(self.job) and self.job == os.environ.get("SLURM_JOB_ID")
        return same_job and self.restart < restart


def hand_over(path: str, pid: int) -> None:
    """Transfer our owner file to another process of this machine, which may outlive us."""
    _replace(path, Owner.of(pid))


@contextlib.contextmanager
def claim(path: str) -> Iterator[str]:
    """Own a file while the block runs; ValueError if another process owns it or died as owner."""
    me = Owner.of(os.getpid())
    if not _create(path, me):
        _take_over(path, me)
    try:
        yield path
    finally:
        os.remove(path)


def _take_over(path: str, me: Owner) -> None:
    """Replace an ended owner; of several candidates, the one that creates the marker wins."""
    owner = _read(path)
    if owner is not None and owner.has_ended():
        marker = f"{path}-{owner.token}"
        if _create(marker, me):
            try:
                if _read(path) == owner:
                    _replace(path, me)
                    return
            finally:
                os.remove(marker)
    who = f"process {owner.pid} on {owner.host}" if owner else "another process"
    raise ValueError(
        f"{who} is writing here, or was killed while writing; this file system has no locks to tell"
        f" which (Lustre has them when mounted with flock): if it has ended, delete {path}"
    )


def _create(path: str, owner: Owner) -> bool:
    """Create the file; False if it exists."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(owner), file)
    except FileExistsError:
        return False
    return True


def _replace(path: str, owner: Owner) -> None:
    temporary = f"{path}-{owner.token}"
    Path(temporary).write_text(json.dumps(dataclasses.asdict(owner)))
    os.replace(temporary, path)


def _read(path: str) -> Owner | None:
    """The owner in the file; None if invalid or gone."""
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        return Owner(**json.loads(Path(path).read_text()))
    return None


def _begun(pid: int) -> str:
    """Start time of a process of this machine; empty if there is none, or not on Linux."""
    with contextlib.suppress(OSError):
        # The name, in parentheses, can hold anything; then come the state and, 19 later, the time.
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return values[19] if values[0] not in "ZX" else ""
    return ""


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
