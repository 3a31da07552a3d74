"""Machines of a network: namespaces of the kernel, with a loopback each, on one bridge.

Needs root, and the caller to be in a namespace of its own (:func:`in_own_network`), which gets the
first address: all ends with the processes in it, and nothing of it has a name outside.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MARK = "WINNOW_IN_OWN_NETWORK"


def in_own_network() -> None:
    """Start this program again in a network namespace of its own, unless it is in one."""
    if _MARK not in os.environ:
        os.environ[_MARK] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])


@dataclass(frozen=True)
class Machine:
    """A place for processes: an address, and the process whose network namespace it is.

    ``keeper`` is None for the one in which this program runs.
    """

    address: str = "127.0.0.1"
    keeper: int | None = None

    def command(self, *words: str) -> list[str]:
        """A command, to be run there."""
        enter = [] if self.keeper is None else ["nsenter", f"--net=/proc/{self.keeper}/ns/net"]
        return [*enter, *words]

    def received(self) -> dict[str, int]:
        """Bytes that came over each device: ``lo``, and ``eth0`` from other machines."""
        said = subprocess.check_output(self.command("ip", "-s", "-j", "link", "show"))
        return {one["ifname"]: one["stats64"]["rx"]["bytes"] for one in json.loads(said)}

    def link(self, state: str) -> None:
        """Take its link ``up`` or ``down``; nobody is told."""
        subprocess.run(self.command("ip", "link", "set", "eth0", state), check=True)


@contextlib.contextmanager
def machines(number: int) -> Iterator[list[Machine]]:
    """This one and so many others, which all reach each other."""
    _ip("link", "set", "lo", "up")
    _ip("link", "add", "winnow", "type", "bridge")
    _ip("address", "add", "10.77.0.1/24", "dev", "winnow")
    _ip("link", "set", "winnow", "up")
    keepers: list[subprocess.Popen[bytes]] = []
    try:
        found = [Machine("10.77.0.1")]
        for i in range(number):
            keepers.append(subprocess.Popen(["unshare", "--net", "sleep", "infinity"]))
            found.append(_joined(f"10.77.0.{i + 2}", f"port{i}", keepers[-1].pid))
        yield found
    finally:
        for keeper in keepers:
            keeper.kill()
            keeper.wait()
        _ip("link", "delete", "winnow")


def _joined(address: str, port: str, keeper: int) -> Machine:
    machine = Machine(address, keeper)
    own = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{keeper}/ns/net") == own or _name(keeper) != "sleep":
        continue  # until unshare has done its work
    _ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(keeper))
    _ip("link", "set", port, "master", "winnow", "up")
    for words in (
        ("address", "add", f"{address}/24", "dev", "eth0"),
        ("link", "set", "lo", "up"),
        ("link", "set", "eth0", "up"),
    ):
        subprocess.run(machine.command("ip", *words), check=True)
    return machine


def _name(process: int) -> str:
    return Path(f"/proc/{process}/comm").read_text().strip()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
