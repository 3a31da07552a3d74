"""Beam's job service and worker pool as processes of their own, as Flink and Spark have theirs.

python tests/helpers/engines_services.py     serves jobs; the port is printed, then nothing more
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from apache_beam.runners.portability import local_job_service
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from corpora import documents, write_classifier, write_jsonl

ROOT = Path(__file__).resolve().parents[2]
POOL = "apache_beam.runners.worker.worker_pool_main"
RULES = {
    "known": ["--alpha=2"],
    "solved": ["--target-fraction=0.3", "--deduplicate", "--near-duplicates"],
}


def write_inputs(folder: Path) -> list[str]:
    """Two sources in five files, and a classifier; gives the flags of a run over them."""
    for i in range(4):
        write_jsonl(folder / "web" / f"{i}.jsonl.gz", documents(120, i))
    write_jsonl(folder / "wiki" / "0.jsonl", documents(60, 0, "wiki"))
    write_classifier(folder / "classifier")
    return [
        f"--source=web={folder}/web/*",
        f"--source=wiki={folder}/wiki/*",
        "--filter=web",
        f"--classifier={folder}/classifier",
    ]


class Job(local_job_service.BeamJob):
    """Beam's own gives a job one worker, whatever its options say; this one listens to them."""

    def _invoke_runner(self):
        self.set_state(local_job_service.beam_job_api_pb2.JobState.RUNNING)
        options = self.pipeline_options()
        runner = FnApiRunner(provision_info=self._provision_info)
        runner._num_workers = int(options.get_all_options()["direct_num_workers"])
        return runner.run_via_runner_api(self._pipeline_proto, options)


@contextlib.contextmanager
def process(*command: str, **kwargs) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed at the end, with all it started."""
    child = subprocess.Popen(command, text=True, start_new_session=True, **kwargs)
    try:
        yield child
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@contextlib.contextmanager
def job_service() -> Iterator[str]:
    """A job service; gives its address."""
    with process(sys.executable, __file__, stdout=subprocess.PIPE) as service:
        yield f"localhost:{int(service.stdout.readline())}"


@contextlib.contextmanager
def worker_pool(
    log: Path, python: str = sys.executable, env: Mapping[str, str] = os.environ
) -> Iterator[str]:
    """Beam's pool, which starts a process for every worker that is asked for; gives its address.

    Everything is done by ``python``, in the folder of ``log``, which is not a checkout.
    """
    port = free_port()
    command = [python, "-m", POOL]
    with (
        log.open("w") as file,
        process(
            *command,
            f"--service_port={port}",
            cwd=log.parent,
            env={**env, "PATH": path_to(python, env)},
            stderr=file,
        ) as pool,
    ):
        while not listens(port):
            assert pool.poll() is None, log.read_text()
            time.sleep(0.1)
        yield f"localhost:{port}"


def path_to(python: str, env: Mapping[str, str] = os.environ) -> str:
    """A ``PATH`` on which ``python`` comes first: a pool starts its workers with what is."""
    return f"{Path(python).parent}{os.pathsep}{env['PATH']}"


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody listens at a port of this machine."""
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("localhost", port)).close()
        return True
    return False


def start_run(*arguments: str) -> subprocess.Popen[str]:
    """``pipeline/run.py`` in a process of its own; :func:`ended` waits for it."""
    command = [sys.executable, str(ROOT / "pipeline" / "run.py"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(run: subprocess.Popen[str], seconds: float = 300) -> tuple[int, str, str]:
    """Exit code, output and errors of a run that ends within so many seconds."""
    output, errors = run.communicate(timeout=seconds)
    return run.returncode, output, errors


def started(log: Path) -> int:
    """How many workers a pool has started."""
    return log.read_text().count("Starting worker with command")


if __name__ == "__main__":
    service = local_job_service.LocalJobServicer(beam_job_type=Job)
    print(service.start_grpc_server(), flush=True)
    signal.pause()
