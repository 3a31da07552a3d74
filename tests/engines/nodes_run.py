"""Training on two nodes that meet over a network, one of them cut off in the middle.

python tests/engines/nodes_run.py               network namespaces: needs root, on Linux
python tests/engines/nodes_run.py --loopback    two loopback addresses; a node is killed instead

Each node is a network namespace with an address of its own, joined by a pair of virtual Ethernet
devices, and runs ``torchrun`` with one process; they share a disk. Then

1. both nodes train to the end,
2. the link goes down in the middle. The nodes were started with ``--nnodes=1:2 --max-restarts=3``:
   the one with the rendezvous goes on by itself from the last checkpoint, alone,
3. likewise, but with ``--nnodes=2``: both end, and a third command goes on from the last checkpoint
   with one process.

Compared are losses and held-out bits with those of one process that trained undisturbed. Takes some
four minutes.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

sys.path.extend(
    str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "tests", "tests/helpers")
)
from training_runs import TINY, corpus_folder

ROOT = Path(__file__).resolve().parents[2]
STEPS, CUT_AT, PATIENCE = 120, 30, 20
LONGEST, GRACE = 600, 30  # seconds that a run may take, and that a node may outlive the other
NAMES = [f"winnow{node}-{os.getpid()}" for node in range(2)]
ADDRESSES = {False: ["10.77.0.1", "10.77.0.2"], True: ["127.0.0.1", "127.0.0.2"]}
DEVICES = {False: "veth{}", True: "lo"}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@contextlib.contextmanager
def network(loopback: bool) -> Iterator[None]:
    """Two namespaces that reach each other and nothing else."""
    if loopback:
        yield
        return
    with contextlib.ExitStack() as stack:
        for name in NAMES:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
        ends = ["veth0", "netns", NAMES[0], "type", "veth"]
        ip("link", "add", *ends, "peer", "name", "veth1", "netns", NAMES[1])
        for node, (name, address) in enumerate(zip(NAMES, ADDRESSES[False], strict=True)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", f"veth{node}")
            ip("-n", name, "link", "set", f"veth{node}", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield


def cut_off(nodes: list[subprocess.Popen[str]], loopback: bool) -> None:
    """Take the second node's link down; nobody is told. Without a network, kill it."""
    if loopback:
        os.killpg(nodes[1].pid, signal.SIGKILL)
    else:
        ip("-n", NAMES[1], "link", "set", "veth1", "down")


class Trial:
    """A training run in a folder of its own."""

    def __init__(self, corpus: Path, output: Path, loopback: bool) -> None:
        self.output = output
        self._loopback = loopback
        self._overrides = [
            *TINY,
            f"train.tokens={STEPS * 64}",
            "model.group_rows=1",  # then sums don't depend on how rows are spread
            "checkpoint.every=10",
            f"train.patience={PATIENCE}",
            f"data.corpus={corpus}",
            "data.arm=unfiltered",
            f"output={output}",
        ]

    def start(self, node: int, port: int, nnodes: str) -> subprocess.Popen[str]:
        """The launcher of one node with one process."""
        host, own = ADDRESSES[self._loopback][0], ADDRESSES[self._loopback][node]
        enter = [] if self._loopback else ["ip", "netns", "exec", NAMES[node]]
        command = [
            *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={nnodes}"),
            *("--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=winnow"),
            *(f"--rdzv-endpoint={host}:{port}", f"--local-addr={own}", "--max-restarts=3"),
            f"--rdzv-conf=is_host={int(node == 0)},last_call_timeout=5,join_timeout=60",
            *("model/train.py", *self._overrides),
        ]
        device = DEVICES[self._loopback].format(node)
        return subprocess.Popen(
            [*enter, *command],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": device},
            stdout=subprocess.DEVNULL,
            stderr=self._log(node).open("a"),
            text=True,
            start_new_session=True,
        )

    def _log(self, node: int) -> Path:
        return self.output.with_name(f"{self.output.name}-{node}.log")

    def alone(self) -> None:
        """Train with one process, to the end."""
        command = [sys.executable, "model/train.py", *self._overrides]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    def step(self) -> int:
        """The last step that is in the log."""
        path = self.output / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return json.loads(lines[-1])["step"] if lines else 0

    def checkpoints(self) -> list[int]:
        """The steps of its checkpoints, ascending."""
        return sorted(int(path.name[5:]) for path in self.output.glob("checkpoints/step_*"))

    def said(self) -> str:
        """The last lines of both launchers."""
        logs = [self._log(node).read_text().splitlines()[-30:] for node in range(2)]
        return "\n".join(line for log in logs for line in log)

    def results(self) -> tuple[dict[int, float], list[float]]:
        """The losses by step, and the held-out bits of each document."""
        rows = map(json.loads, (self.output / "metrics.jsonl").read_text().splitlines())
        table = pa.ipc.open_file(self.output / "heldout.arrow").read_all()
        return {row["step"]: row["loss"] for row in rows}, table["bits"].to_pylist()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def trains(node: int) -> bool:
    """Whether a process trains in a node's namespace, beside its launcher."""
    found = subprocess.run(["ip", "netns", "pids", NAMES[node]], capture_output=True, text=True)
    lines = [Path(f"/proc/{pid}/cmdline") for pid in found.stdout.split()]
    commands = [path.read_bytes() for path in lines if path.exists()]
    return any(b"model/train.py" in c and b"torch.distributed.run" not in c for c in commands)


def ended(nodes: list[subprocess.Popen[str]], loopback: bool) -> list[int | None]:
    """Exit codes; None for one that still runs some time after the first, and is killed."""
    until = time.monotonic() + LONGEST
    while time.monotonic() < until and any(node.poll() is None for node in nodes):
        if nodes[0].poll() is not None:
            until = min(until, time.monotonic() + GRACE)
        time.sleep(0.2)
    codes = [node.poll() for node in nodes]
    if codes[1] is None and not loopback:
        print(f"  a process trains on the second node: {trains(1)}", flush=True)
    for node in nodes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()
    return codes


def until_step(trial: Trial, nodes: list[subprocess.Popen[str]]) -> None:
    while trial.step() < CUT_AT:
        assert all(node.poll() is None for node in nodes), trial.said()
        time.sleep(0.05)


def compare(trial: Trial, expected: Trial) -> str:
    """The largest relative difference of a loss, and of a document's bits; all steps are there."""
    (losses, bits), (others, their_bits) = trial.results(), expected.results()
    assert losses.keys() == others.keys(), sorted(losses.keys() ^ others.keys())
    loss = max(abs(losses[step] / others[step] - 1) for step in losses)
    document = max(abs(a / b - 1) for a, b in zip(bits, their_bits, strict=True))
    assert max(loss, document) < 1e-4, (loss, document)
    return f"loss within {loss:.1e}, held-out bits within {document:.1e} of one process"


def main() -> None:
    parser = argparse.ArgumentParser(description="Two nodes, one cut off.")
    parser.add_argument("--loopback", action="store_true", help="no namespaces: needs no root")
    parser.add_argument("--only", choices=["whole", "1:2", "2"], help="one of the three")
    flags = parser.parse_args()
    loopback = flags.loopback
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave no namespace behind
    with tempfile.TemporaryDirectory() as name, network(loopback):
        folder = Path(name)
        corpus = corpus_folder(folder)
        expected = Trial(corpus, folder / "alone", loopback)
        expected.alone()

        if flags.only in (None, "whole"):
            trial = Trial(corpus, folder / "whole", loopback)
            port = free_port()
            codes = ended([trial.start(node, port, "2") for node in range(2)], loopback)
            assert codes == [0, 0], (codes, trial.said())
            print(f"two nodes to the end: {compare(trial, expected)}", flush=True)

        for nnodes in [flags.only] if flags.only else ["1:2", "2"]:
            if nnodes == "whole":
                break
            trial = Trial(corpus, folder / f"cut-{nnodes[0]}", loopback)
            port = free_port()
            nodes = [trial.start(node, port, nnodes) for node in range(2)]
            until_step(trial, nodes)
            cut_off(nodes, loopback)
            begun, saved, step = time.monotonic(), trial.checkpoints()[-1], trial.step()
            codes = ended(nodes, loopback)
            seconds = time.monotonic() - begun
            print(f"--nnodes={nnodes}, cut off at step {step} (checkpoint {saved}):", flush=True)
            print(f"  the nodes ended with {codes} after {seconds:.0f} s", flush=True)
            if nnodes == "2":
                assert 0 not in codes, (codes, trial.said())
                trial.alone()
                print("  and one process went on from the last checkpoint", flush=True)
            else:
                assert codes[0] == 0, (codes, trial.said())
                assert codes[1] != 0, (codes, trial.said())
            print(f"  {compare(trial, expected)}", flush=True)
            if not loopback:
                ip("-n", NAMES[1], "link", "set", "veth1", "up")


if __name__ == "__main__":
    main()
