"""Beam's portable runner: a job service and worker processes over TCP."""

import concurrent.futures
import time

import apache_beam as beam
import grpc
import pytest
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from corpora import fingerprints
from engines_services import RULES, job_service, started, worker_pool

from pipeline import run
from pipeline.beam import engine, job_server
from pipeline.beam.progress import Watch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("pool") / "log.txt"


@pytest.fixture(scope="module")
def portable(log):
    with job_service() as jobs, worker_pool(log) as pool:
        yield [
            "--runner=PortableRunner",
            f"--job_endpoint={jobs}",
            "--environment_type=EXTERNAL",
            f"--environment_config={pool}",
            "--direct_num_workers=2",
        ]


@pytest.mark.engines
@pytest.mark.parametrize("rule", RULES)
def test_two_worker_processes_write_what_the_direct_runner_does(
    inputs, direct, portable, log, tmp_path, rule
):
    before = started(log)
    run.main([*inputs, *RULES[rule], f"--output={tmp_path}/portable", *portable])
    assert started(log) == before + 2
    found = fingerprints(tmp_path / "portable")
    assert found == direct[rule]
    assert sum(name.startswith("shards/") for name in found) == 5


@pytest.mark.engines
def test_a_large_element_that_is_slow_to_encode_arrives_whole(portable, tmp_path):
    class Slow:
        """Bytes that take longer to pickle than the runner waits before it sends what it has."""

        def __init__(self, content):
            self.content = content

        def __reduce__(self):
            time.sleep(1.3)
            return bytes, (self.content,)

    def build(pipeline):
        _ = (
            pipeline
            | beam.Create(range(2))
            | beam.Map(lambda i: (i, Slow(bytes([i]) * (12 << 20))))
            | beam.GroupByKey()
            | beam.MapTuple(lambda i, found: (tmp_path / str(i)).write_bytes(b"".join(found)))
        )

    engine.run(engine.options(portable), build, Watch(None, 0, 10))
    for i in range(2):
        assert (tmp_path / str(i)).read_bytes() == bytes([i]) * (12 << 20)


@pytest.mark.engines
def test_the_message_of_a_failing_worker_arrives(portable):
    def build(pipeline):
        _ = pipeline | beam.Create([0]) | beam.Map(lambda i: 1 // i)

    with pytest.raises(RuntimeError, match="ZeroDivisionError: integer division"):
        engine.run(engine.options(portable), build, Watch(None, 0, 10))


def test_options_of_the_job_server_are_known(monkeypatch):
    """Those of Flink and Spark, which Beam's Python lacks."""
    described = beam_job_api_pb2.DescribePipelineOptionsResponse()
    described.options.add(name="number_of_execution_retries")
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))

    class Service(beam_job_api_pb2_grpc.JobServiceServicer):
        def DescribePipelineOptions(self, request, context=None):
            return described

    beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(Service(), server)
    endpoint = f"--job_endpoint=localhost:{server.add_insecure_port('localhost:0')}"
    server.start()
    flags = ["--runner=PortableRunner", endpoint, "--number_of_execution_retries", "3"]
    known = engine.options(flags).get_all_options(retain_unknown_options=True)
    assert int(known["number_of_execution_retries"]) == 3
    with pytest.raises(ValueError, match="neither Winnow nor Beam has --number_of_retries"):
        engine.options([*flags, "--number_of_retries=3"])
    server.stop(None)
    monkeypatch.setattr(job_server, "_SECONDS", 0.1)
    with pytest.raises(ConnectionError, match="no job server answers at localhost"):
        engine.options(flags)


def test_why_a_job_failed_is_one_line():
    java = (
        "Pipeline BeamApp-1_2 failed in state FAILED: org.apache.flink.runtime.JobException:"
        " Recovery is suppressed.\n\tat a.b(C.java:1)\nCaused by: java.lang.RuntimeException: x\n"
        "\tat d.e(F.java:2)\nCaused by: java.io.IOException: lost TaskManager\n\tat g.h(I.java:3)"
    )
    assert job_server.failure(java) == (
        "org.apache.flink.runtime.JobException: Recovery is suppressed"
        " (java.io.IOException: lost TaskManager)"
    )
    flink = "io.grpc.StatusRuntimeException: io.grpc.StatusRuntimeException: CANCELLED: client gone"
    assert job_server.failure(f"Pipeline job failed in state FAILED: {flink}") == (
        "it lost a Python worker: io.grpc.StatusRuntimeException: CANCELLED: client gone"
    )
    assert job_server.failure("ZeroDivisionError: integer division") is None
