"""A stand-in for Dataflow on this machine: it takes a job, and runs it from what was staged alone.

As Dataflow does, it gets nothing but the job's JSON over HTTP. From the bucket it fetches pipeline
and packages, installs them in an environment of its own, and has two worker processes there do the
work over TCP. What it is not: the service's own checks, graph optimiser, autoscaling and retries.
"""

import contextlib
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import grpc
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_job_api_pb2_grpc, beam_runner_api_pb2
from apache_beam.runners.portability.portable_runner import JobServiceHandle, PipelineResult
from apache_beam.transforms.environments import ExternalEnvironment
from corpora import copy_kernels
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from engines_services import job_service, worker_pool

from winnow.filesystem import storage
from winnow.object_stores import object_store


class Dataflow:
    """Dataflow's jobs, and the tokens that Google's clients ask for.

    ``jobs`` are the jobs as they were submitted, by id. ``run`` is called for each, in a thread; if
    it raises, the job has failed, once its message has been fetched.
    """

    def __init__(self, run: Callable[[dict], None]) -> None:
        self.jobs: dict[str, dict] = {}
        self.states: dict[str, str] = {}
        self.messages: dict[str, list[str]] = {}
        self.run = run
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/token":
                    self.reply({"access_token": "t", "expires_in": 3600, "token_type": "Bearer"})
                else:
                    assert self.headers["Authorization"] == "Bearer t"
                    assert self.path.startswith("/v1b3/projects/p/locations/europe-west1/jobs")
                    self.reply(service.submit(json.loads(content)))

            def do_GET(self) -> None:
                name, what = re.search(r"/jobs/([^/?]+)(/messages)?", self.path).groups()
                if what is None:
                    self.reply(service.job(name))
                    return
                error = "JOB_MESSAGE_ERROR"
                texts = service.messages[name]
                self.reply(
                    {"jobMessages": [{"messageText": t, "messageImportance": error} for t in texts]}
                )
                if texts:
                    service.states[name] = "JOB_STATE_FAILED"

            def reply(self, value) -> None:
                content = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def submit(self, job: dict) -> dict:
        name = f"job-{len(self.jobs) + 1}"
        self.jobs[name] = job
        self.states[name] = "JOB_STATE_RUNNING"
        self.messages[name] = []
        threading.Thread(target=self._work, args=(name,), daemon=True).start()
        return self.job(name)

    def job(self, name: str) -> dict:
        return {**self.jobs[name], "id": name, "currentState": self.states[name]}

    def _work(self, name: str) -> None:
        try:
            self.run(self.jobs[name])
        except Exception as error:
            traceback.print_exc()
            self.messages[name].append(str(error))
        else:
            self.states[name] = "JOB_STATE_DONE"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def credentials(path: Path, endpoint: str) -> None:
    """The key of a service account whose tokens the stand-in gives out."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "winnow@p.iam.gserviceaccount.com",
        "token_uri": f"{endpoint}/token",
    }
    path.write_text(json.dumps(account))


def pipeline_of(job: dict) -> beam_runner_api_pb2.Pipeline:
    """The graph of a submitted job, from the bucket."""
    url = job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
    return beam_runner_api_pb2.Pipeline.FromString(storage.read_bytes(url))


def fetch_staged(graph: beam_runner_api_pb2.Pipeline, folder: Path) -> list[str]:
    """Everything the graph's environment depends on, checked and under the name it asks for."""
    (environment,) = graph.components.environments.values()
    names = []
    for artifact in environment.dependencies:
        assert artifact.type_urn == common_urns.artifact_types.URL.urn
        found = beam_runner_api_pb2.ArtifactUrlPayload.FromString(artifact.type_payload)
        role = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(artifact.role_payload)
        content = storage.read_bytes(found.url)
        assert hashlib.sha256(content).hexdigest() == found.sha256
        (folder / role.staged_name).write_bytes(content)
        names.append(role.staged_name)
    return sorted(names)


def install(staged: Path, folder: Path, dependencies: bool) -> str:
    """An environment with what was staged, in the order of Beam's containers; its interpreter.

    Without ``dependencies`` only the packages are installed, and what they need is this one's.
    """
    # pip is that of here: to install another one takes longer than all the rest.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    (site,) = folder.glob("lib/*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    pip += ["--disable-pip-version-check"]
    if dependencies:
        subprocess.run([*pip, "-r", str(staged / "requirements.txt")], check=True)
        # In Beam's own container this comes with the image.
        subprocess.run([*pip, "apache-beam[gcp]==2.77.0"], check=True)
    else:
        # Not a site folder there, so what is installed as editable here cannot be imported.
        (site / "others.pth").write_text(sysconfig.get_paths()["purelib"])
    for name in (staged / "extra_packages.txt").read_text().split():
        # pip may take what is in the other environment for installed.
        subprocess.run([*pip, "--no-deps", "--ignore-installed", str(staged / name)], check=True)
    copy_kernels(site)
    return python


def run_graph(
    graph: beam_runner_api_pb2.Pipeline, python: str, log: Path, env: Mapping[str, str]
) -> None:
    """Run a graph by two workers in the environment of ``python``, with nothing else of ours.

    Raises:
        RuntimeError: it failed; the message has the worker's traceback.
    """
    with job_service() as jobs, worker_pool(log, python, env) as pool:
        (name,) = graph.components.environments
        external = ExternalEnvironment(pool).to_runner_api(None)
        graph.components.environments[name].CopyFrom(external)
        options = PipelineOptions(["--direct_num_workers=2", f"--job_endpoint={jobs}"])
        options.view_as(PortableOptions).job_server_timeout = 600
        with grpc.insecure_channel(jobs) as channel:
            service = beam_job_api_pb2_grpc.JobServiceStub(channel)
            job, messages, states = JobServiceHandle(service, options).submit(graph)
            PipelineResult(service, job, messages, states, ()).wait_until_finish()


@contextlib.contextmanager
def serving(folder: Path, store: int, dependencies: bool = False) -> Iterator[Dataflow]:
    """Dataflow and the environment variables by which Google's clients find the stand-ins.

    Of each job ``folder`` holds, under the job's number, what was ``staged``, the ``environment``
    made of it and the log of its ``pool`` of workers.
    """

    def run(job: dict) -> None:
        graph = pipeline_of(job)
        place = folder / str(len(service.jobs))
        staged, pool = place / "staged", place / "pool"
        staged.mkdir(parents=True)
        pool.mkdir()
        fetch_staged(graph, staged)
        python = install(staged, place / "environment", dependencies)
        names = ("PATH", "STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS")
        run_graph(graph, python, pool / "log.txt", {name: os.environ[name] for name in names})

    service = Dataflow(run)
    credentials(folder / "account.json", service.endpoint)
    before = dict(os.environ)
    os.environ |= {
        "STORAGE_EMULATOR_HOST": f"http://localhost:{store}",
        "GOOGLE_APPLICATION_CREDENTIALS": str(folder / "account.json"),
    }
    object_store.configure(PipelineOptions([]))  # forget the stores of before
    try:
        yield service
    finally:
        service.close()
        os.environ.clear()
        os.environ |= before
