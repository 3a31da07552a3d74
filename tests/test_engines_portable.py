"""Beam's portable runner, with a job service and worker processes of its own, over TCP."""

import time

import apache_beam as beam
import pytest
from corpora import fingerprints
from engines_services import job_service, started, worker_pool, write_inputs

from pipeline import run
from pipeline.beam import engine
from pipeline.beam.progress import Watch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


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


@pytest.mark.parametrize(
    "rule", [["--alpha=2"], ["--target-fraction=0.3", "--deduplicate", "--near-duplicates"]]
)
def test_two_worker_processes_write_what_the_direct_runner_does(
    inputs, portable, log, tmp_path, rule
):
    run.main([*inputs, *rule, f"--output={tmp_path}/direct", "--runner=DirectRunner"])
    before = started(log)
    run.main([*inputs, *rule, f"--output={tmp_path}/portable", *portable])
    assert started(log) == before + 2
    found = fingerprints(tmp_path / "portable")
    assert found == fingerprints(tmp_path / "direct")
    assert sum(name.startswith("shards/") for name in found) == 5


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
            | beam.MapTuple(
                lambda i, found: [(tmp_path / str(i)).write_bytes(content) for content in found]
            )
        )

    engine.run(engine.options(portable), build, Watch(None, 0, 10))
    for i in range(2):
        assert (tmp_path / str(i)).read_bytes() == bytes([i]) * (12 << 20)


def test_the_message_of_a_failing_worker_arrives(portable):
    def build(pipeline):
        _ = pipeline | beam.Create([0]) | beam.Map(lambda i: 1 // i)

    with pytest.raises(RuntimeError, match="ZeroDivisionError: integer division"):
        engine.run(engine.options(portable), build, Watch(None, 0, 10))
