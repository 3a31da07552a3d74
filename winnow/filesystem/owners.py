"""Files that say which process a folder or a file belongs to, for file systems without locks.

The kernel's locks end with their process. Lustre has them only when it is mounted with ``flock``,
NFS only with its lock service. A file that only one process can create is there on all of them, but
stays when its process is killed. Then the next one takes it over where it can tell: on the same
machine, since no such process lives, or in the same Slurm job, since Slurm has started it again.
Elsewhere a person has to say so, by deleting the file.
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
"""What ``flock`` fails with where there are no locks."""


@dataclass(frozen=True)
class Owner:
    """A process: its machine and the time (in ticks since the machine started) when it began.

    ``job`` and ``restart`` are Slurm's, empty and 0 elsewhere; ``token`` is of this claim alone.
    """

    host: str
    boot: str
    pid: int
    begun: str
    job: str
    restart: int
    token: str

    @classmethod
    def of(cls, pid: int) -> "Owner":
        """Of a process of this machine."""
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
        """Whether it certainly has; not where this process cannot know."""
        if (self.host, self.boot) == (socket.gethostname(), _boot()):
            return not self.begun or _begun(self.pid) != self.begun
        restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        return (
            bool(self.job)
            and self.job == os.environ.get("SLURM_JOB_ID")
            and (self.restart < restart)
        )


@dataclass(frozen=True)
class Claim:
    """A file that is ours."""

    path: str

    def hand_over(self, pid: int) -> None:
        """Let it belong to another process of this machine, which may outlive this one."""
        _replace(self.path, Owner.of(pid))


@contextlib.contextmanager
def claim(path: str) -> Iterator[Claim]:
    """Own this file while the block runs.

    Raises:
        ValueError: another process owns it, or did when it was killed.
    """
    me = Owner.of(os.getpid())
    if not _create(path, me):
        _take_over(path, me)
    try:
        yield Claim(path)
    finally:
        os.remove(path)


def _take_over(path: str, me: Owner) -> None:
    """Replace an owner that has ended. Of several that find it so, one can: who makes the marker
    and then still finds the same owner.
    """
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
        f"{who} is writing here, or was killed while it was; this file system has no locks that"
        f" would tell (Lustre has them when mounted with flock): if it has ended, delete {path}"
    )


def _create(path: str, owner: Owner) -> bool:
    """Whether the file was not there, and now is."""
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
    """The owner that the file names; None if it names none, or is gone."""
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        return Owner(**json.loads(Path(path).read_text()))
    return None


def _begun(pid: int) -> str:
    """When a process of this machine began; nothing if there is no such process, or no Linux."""
    with contextlib.suppress(OSError):
        # The name, in parentheses, can hold anything; then come the state and, 19 on, the time.
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return values[19] if values[0] not in "ZX" else ""
    return ""


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
