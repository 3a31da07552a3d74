"""Flink and Spark as real clusters on loopback. `make engines` fetches them."""

import functools
import shutil
import signal
import time

import apache_beam as beam
import engines_clusters
import engines_services
import pytest
from corpora import fingerprints
from engines_services import RULES, start_run, worker_pool

from pipeline.beam import engine
from pipeline.beam.progress import Watch

pytestmark = [pytest.mark.slow, pytest.mark.clusters]
ended = functools.partial(engines_services.ended, seconds=600)
STARTS = {"flink": engines_clusters.flink, "spark": engines_clusters.spark}


@pytest.fixture(scope="module", params=STARTS)
def cluster(request, tmp_path_factory):
    """A cluster of one worker with two slots, and the pool that starts our Python for it.

    One, because executors number their Python workers from 1, and a pool knows them by that number:
    two executors with one pool would stop each other's.
    """
    if reason := engines_clusters.missing(request.param):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp(request.param)
    starting = STARTS[request.param](folder / "cluster")
    with starting as cluster, worker_pool(folder / "pool.txt") as pool:
        cluster.flags += ["--environment_type=EXTERNAL", f"--environment_config={pool}"]
        yield cluster


def wait_for_a_shard(process, output):
    while process.poll() is None and not list(output.glob("shards/*")):
        time.sleep(0.01)


@pytest.mark.parametrize("rule", RULES)
def test_a_cluster_writes_what_the_direct_runner_does(inputs, direct, cluster, tmp_path, rule):
    run = start_run(*inputs, *RULES[rule], *cluster.flags, f"--output={tmp_path}/a")
    code, _, errors = ended(run)
    assert code == 0, errors
    assert fingerprints(tmp_path / "a") == direct[rule]


def test_the_message_of_a_failing_worker_arrives(cluster):
    def build(pipeline):
        _ = pipeline | beam.Create([0]) | beam.Map(lambda i: 1 // i)

    with pytest.raises(RuntimeError, match=r"^ZeroDivisionError: integer division"):
        engine.run(engine.options(cluster.flags), build, Watch(None, 0, 10))


@pytest.mark.parametrize("killed", ["worker_0", "driver"])
def test_a_run_that_loses_a_process_is_resumed(inputs, direct, cluster, tmp_path, killed):
    flags = [*RULES["solved"], f"--output={tmp_path}/a"]
    one = start_run(*inputs, *flags, *cluster.flags)
    wait_for_a_shard(one, tmp_path / "a")
    if killed == "driver":
        one.send_signal(signal.SIGKILL)
        # The job outlives it, and Spark's job server has one job at a time.
        cluster.kill("job_server")
        cluster.again("job_server")
    else:
        cluster.kill(killed)
        cluster.again(killed)
    code, _, errors = ended(one)
    if killed != "driver":
        # The engine may have repeated the lost work.
        assert code == 0 or errors.splitlines()[-1].endswith("--resume"), errors
    copy = shutil.copytree(tmp_path / "a", tmp_path / "b")
    code, _, errors = ended(start_run(*inputs, *flags, *cluster.flags, "--resume"))
    assert code == 0, errors
    assert fingerprints(tmp_path / "a") == direct["solved"]
    elsewhere = [*RULES["solved"], f"--output={copy}", "--resume"]
    assert ended(start_run(*inputs, *elsewhere))[0] == 0
    assert fingerprints(copy) == direct["solved"]


def test_a_run_whose_job_server_is_gone_says_so(inputs, cluster, tmp_path):
    one = start_run(*inputs, *RULES["known"], *cluster.flags, f"--output={tmp_path}/a")
    wait_for_a_shard(one, tmp_path / "a")
    cluster.kill("job_server")
    code, _, errors = ended(one)
    cluster.again("job_server")
    assert code == 0 or errors.splitlines()[-1].endswith("--resume"), errors
    assert "Traceback" not in errors
