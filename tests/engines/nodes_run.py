"""Training on two nodes that meet over a network, one of them cut off in the middle.

    sudo python tests/engines/nodes_run.py

Each node is a network namespace and runs ``torchrun`` with one process; they share a disk.

- whole  both nodes train to the end
- 1:2    the second node's link goes down in the middle. With ``--nnodes=1:2 --max-restarts=3`` the
         first, which has the rendezvous, continues alone from the last checkpoint
- 2      the same with ``--nnodes=2``: both end, and one process continues from the last checkpoint

Losses and held-out bits are compared with those of one undisturbed process. Takes four minutes.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

sys.path.extend(
    str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "tests", "tests/helpers")
)
from engines_machines import Machine, in_own_network, machines
from engines_services import ROOT, free_port
from training_runs import TINY, corpus_folder

STEPS, CUT_AT, PATIENCE = 120, 30, 20
LONGEST, GRACE = 600, 30  # seconds that a run may take, and that a node may outlive the other
CASES = ("whole", "1:2", "2")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0"}


class Trial:
    """A training run in its own folder."""

    def __init__(self, corpus: Path, output: Path) -> None:
        self.output = output
        self._log = output.with_suffix(".log")
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

    def start(self, nodes: list[Machine], nnodes: str) -> list[subprocess.Popen[str]]:
        """A launcher with one process on each node; the first has the rendezvous."""
        endpoint = f"{nodes[0].address}:{free_port()}"
        launchers = []
        for node in nodes:
            command = [
                *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={nnodes}"),
                *("--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=winnow"),
                *(f"--rdzv-endpoint={endpoint}", f"--local-addr={node.address}"),
                f"--rdzv-conf=is_host={int(not launchers)},last_call_timeout=5,join_timeout=60",
                *("--max-restarts=3", "model/train.py", *self._overrides),
            ]
            launcher = subprocess.Popen(
                node.command(*command),
                cwd=ROOT,
                env=ENVIRONMENT,
                stdout=subprocess.DEVNULL,
                stderr=self._log.open("a"),
                text=True,
                start_new_session=True,
            )
            launchers.append(launcher)
        return launchers

    def alone(self) -> None:
        """Train with one process, to the end."""
        command = [sys.executable, "model/train.py", *self._overrides]
        with self._log.open("a") as log:
            subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True, stdout=log, stderr=log)

    def step(self) -> int:
        """The last step in the metrics."""
        path = self.output / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return json.loads(lines[-1])["step"] if lines else 0

    def last_checkpoint(self) -> int:
        """The step of the newest checkpoint."""
        return max(int(path.name[5:]) for path in self.output.glob("checkpoints/step_*"))

    def errors(self) -> str:
        """The last lines of both launchers."""
        return "\n".join(self._log.read_text().splitlines()[-60:])

    def results(self) -> tuple[dict[int, float], list[float]]:
        """The losses by step, and the held-out bits of each document."""
        rows = map(json.loads, (self.output / "metrics.jsonl").read_text().splitlines())
        table = pa.ipc.open_file(self.output / "heldout.arrow").read_all()
        return {row["step"]: row["loss"] for row in rows}, table["bits"].to_pylist()


def exit_codes(launchers: list[subprocess.Popen[str]]) -> list[int | None]:
    """Exit codes; None for one that still runs some time after the first ends, and is killed."""
    until = time.monotonic() + LONGEST
    while time.monotonic() < until and any(launcher.poll() is None for launcher in launchers):
        if launchers[0].poll() is not None:
            until = min(until, time.monotonic() + GRACE)
        time.sleep(0.2)
    codes = [launcher.poll() for launcher in launchers]
    for launcher in launchers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
        launcher.wait()
    return codes


def compare(trial: Trial, expected: Trial) -> str:
    """The largest relative difference of a loss, and of a document's bits; all steps are there."""
    (losses, bits), (others, their_bits) = trial.results(), expected.results()
    assert losses.keys() == others.keys(), sorted(losses.keys() ^ others.keys())
    loss = max(abs(losses[step] / others[step] - 1) for step in losses)
    document = max(abs(a / b - 1) for a, b in zip(bits, their_bits, strict=True))
    assert max(loss, document) < 1e-4, (loss, document)
    return f"loss within {loss:.1e}, held-out bits within {document:.1e} of one process"


def cut_off(trial: Trial, nodes: list[Machine], nnodes: str) -> None:
    """Take the second node's link down in the middle, and wait for the end."""
    launchers = trial.start(nodes, nnodes)
    while trial.step() < CUT_AT:
        assert all(launcher.poll() is None for launcher in launchers), trial.errors()
        time.sleep(0.05)
    nodes[1].link("down")
    begun, saved, step = time.monotonic(), trial.last_checkpoint(), trial.step()
    codes = exit_codes(launchers)
    nodes[1].link("up")
    print(f"--nnodes={nnodes}, cut off at step {step} (checkpoint {saved}):", flush=True)
    print(f"  exit codes {codes} after {time.monotonic() - begun:.0f} s", flush=True)
    assert codes[1] != 0, (codes, trial.errors())
    assert (codes[0] == 0) == (nnodes == "1:2"), (codes, trial.errors())
    if nnodes == "2":
        trial.alone()
        print("  one process continued from the last checkpoint", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", default=CASES, help=f"{', '.join(CASES)}; default: all")
    cases = parser.parse_args().cases
    if unknown := set(cases) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}")
    in_own_network()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave no namespace behind
    with tempfile.TemporaryDirectory() as name, machines(2) as (_, *nodes):
        corpus = corpus_folder(Path(name))
        expected = Trial(corpus, Path(name, "alone"))
        expected.alone()
        for case in cases:
            trial = Trial(corpus, Path(name, f"case-{case[0]}"))
            if case == "whole":
                codes = exit_codes(trial.start(nodes, "2"))
                assert codes == [0, 0], (codes, trial.errors())
                print("two nodes to the end:", flush=True)
            else:
                cut_off(trial, nodes, case)
            print(f"  {compare(trial, expected)}", flush=True)


if __name__ == "__main__":
    main()
