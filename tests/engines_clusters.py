"""Flink and Spark as clusters of processes on loopback, from what ``make engines`` fetched.

A cluster has a master, workers that can be killed one by one, and Beam's job server before them.
Each process writes its log beside the cluster's files.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engines_services import ROOT, free_port, listens

FETCHED = ROOT / "cache" / "engines"
JAVA = shutil.which("java")
START_SECONDS = 120

# What Flink 1.19 and Spark 3.5 need of a Java newer than they are, as their own scripts have it.
_OPENS = [
    f"--add-{what}={module}/{package}=ALL-UNNAMED"
    for what, module, packages in (
        ("exports", "java.base", "sun.net.util"),
        ("exports", "java.rmi", "sun.rmi.registry"),
        (
            "opens",
            "java.base",
            "java.lang java.lang.invoke java.lang.reflect java.io java.net java.nio java.text"
            " java.time java.util java.util.concurrent java.util.concurrent.atomic"
            " java.util.concurrent.locks sun.nio.ch sun.nio.cs sun.security.action"
            " sun.util.calendar",
        ),
    )
    for package in packages.split()
]


def missing(engine: str) -> str | None:
    """Why a cluster of this engine cannot be started here; None if it can."""
    if JAVA is None:
        return "Java is not here"
    for part in ("distribution", "job_server"):
        if not (FETCHED / engine / part).is_dir():
            return f"{engine}'s {part.replace('_', ' ')} is not here: make engines fetches it"
    return None


@dataclass
class Cluster:
    """The processes of one cluster, by name, and the flags that send a run to it."""

    folder: Path
    flags: list[str] = field(default_factory=list)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    commands: dict[str, list[str]] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process that lives until it is killed, or the cluster ends."""
        self.commands[name] = list(command)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **self.env},
                start_new_session=True,
            )

    def again(self, name: str) -> None:
        """Start a process once more that has ended."""
        self.start(name, self.commands[name])

    def kill(self, name: str) -> None:
        """``kill -9`` of a process and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.processes[name].pid, signal.SIGKILL)
        self.processes[name].wait()

    def log(self, name: str) -> str:
        """What a process has written."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def until(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until the cluster is ready; fail when one of its processes ends before."""
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} ended:\n{self.log(name)[-3000:]}"
            assert time.monotonic() < deadline, f"{what} is not ready after {START_SECONDS} s"
            time.sleep(0.2)


@contextlib.contextmanager
def _cluster(folder: Path) -> Iterator[Cluster]:
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        for name in cluster.processes:
            cluster.kill(name)


@contextlib.contextmanager
def flink(folder: Path, workers: int = 1, slots: int = 2) -> Iterator[Cluster]:
    """A Flink session cluster: a job manager, task managers of so many slots, Beam's job server."""
    with _cluster(folder) as cluster:
        port, jobs = free_port(), free_port()
        settings = {
            "jobmanager.bind-host": "127.0.0.1",
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": free_port(),
            "jobmanager.memory.process.size": "1200m",
            "taskmanager.bind-host": "127.0.0.1",
            "taskmanager.host": "127.0.0.1",
            "taskmanager.numberOfTaskSlots": slots,
            "taskmanager.memory.process.size": "1728m",
            # A graph with near-duplicates needs more than the tenth that is Flink's default.
            "taskmanager.memory.network.fraction": 0.25,
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": port,
            "heartbeat.interval": 2000,
            "heartbeat.timeout": 20000,
            "io.tmp.dirs": str(folder),
        }
        lines = "".join(f"{name}: {value}\n" for name, value in settings.items())
        (folder / "config.yaml").write_text(lines)
        configured = ["--configDir", str(folder)]
        library = FETCHED / "flink" / "distribution" / "lib"
        java = [str(JAVA), *_OPENS, "-cp", f"{library}/*"]
        runtime = "org.apache.flink.runtime"
        cluster.start(
            "job_manager",
            [*java, f"{runtime}.entrypoint.StandaloneSessionClusterEntrypoint", *configured],
        )
        memory, resources = _flink_memory(folder)
        for number in range(workers):
            worker = [f"{runtime}.taskexecutor.TaskManagerRunner", *configured, *resources]
            cluster.start(f"worker_{number}", [java[0], *memory, *java[1:], *worker])

        def registered() -> bool:
            return _flink_overview(port).get("taskmanagers") == workers

        cluster.until(registered, "Flink")
        driver = "org.apache.beam.runners.flink.FlinkJobServerDriver"
        _job_server(cluster, "flink", driver, [f"--flink-master=127.0.0.1:{port}"], jobs)
        cluster.flags = ["--runner=PortableRunner", f"--job_endpoint=localhost:{jobs}"]
        yield cluster


def _flink_memory(folder: Path) -> tuple[list[str], list[str]]:
    """Java's and Flink's settings of a task manager's memory, from Flink's own calculator."""
    place = FETCHED / "flink" / "distribution"
    found = subprocess.run(
        [
            str(JAVA),
            "-cp",
            f"{place}/bin/bash-java-utils.jar:{place}/lib/*",
            "org.apache.flink.runtime.util.bash.BashJavaUtils",
            "GET_TM_RESOURCE_PARAMS",
            "--configDir",
            str(folder),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = re.findall(r"^BASH_JAVA_UTILS_EXEC_RESULT:(.*)$", found.stdout, re.MULTILINE)
    memory, resources = (line.split() for line in lines)
    return memory, resources


def _flink_overview(port: int) -> dict[str, object]:
    with contextlib.suppress(OSError):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/overview", timeout=5) as answer:
            return dict(json.load(answer))
    return {}


@contextlib.contextmanager
def spark(folder: Path, workers: int = 1, slots: int = 2) -> Iterator[Cluster]:
    """A stand-alone Spark cluster: a master, workers of so many cores, Beam's job server."""
    with _cluster(folder) as cluster:
        port, jobs = free_port(), free_port()
        home = FETCHED / "spark" / "distribution"
        cluster.env = {
            "SPARK_HOME": str(home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_SCALA_VERSION": "2.12",
        }
        deploy = "org.apache.spark.deploy"
        java = [str(JAVA), "-Xmx512m", *_OPENS, "-cp", f"{home}/jars/*"]
        here = ["--host", "127.0.0.1", "--webui-port", "0"]
        cluster.start("master", [*java, f"{deploy}.master.Master", "--port", str(port), *here])
        for number in range(workers):
            limits = ["--cores", str(slots), "--memory", "1g", "--work-dir", f"{folder}/{number}"]
            worker = [f"{deploy}.worker.Worker", *here, *limits, f"spark://127.0.0.1:{port}"]
            cluster.start(f"worker_{number}", [*java, *worker])

        def registered() -> bool:
            return cluster.log("master").count("Registering worker") == workers

        cluster.until(registered, "Spark")
        driver = "org.apache.beam.runners.spark.SparkJobServerDriver"
        _job_server(
            cluster, "spark", driver, [f"--spark-master-url=spark://127.0.0.1:{port}"], jobs
        )
        cluster.flags = ["--runner=PortableRunner", f"--job_endpoint=localhost:{jobs}"]
        yield cluster


def _job_server(
    cluster: Cluster, engine: str, driver: str, arguments: list[str], port: int
) -> None:
    """Start Beam's job server for an engine and wait until it listens."""
    place = FETCHED / engine
    library = "lib" if engine == "flink" else "jars"
    classes = f"{place}/job_server/*:{place}/distribution/{library}/*"
    cluster.start(
        "job_server",
        [
            *(str(JAVA), "-Xmx768m", *_OPENS, "-cp", classes, driver, *arguments),
            *("--job-host=localhost", f"--job-port={port}", "--artifact-port=0"),
            *("--expansion-port=-1", f"--artifacts-dir={cluster.folder}/artifacts"),
        ],
    )
    cluster.until(functools.partial(listens, port), "the job server")
