"""Whole runs on S3 and Google Cloud Storage: as on a local disk, through kills and faults."""

import base64
import bz2
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import threading
import uuid
from pathlib import Path

import pytest
from apache_beam import Pipeline
from apache_beam.options.pipeline_options import PipelineOptions
from corpora import documents, fingerprints, write_classifier, write_jsonl
from engines_services import job_service, started, worker_pool
from store_servers import Faulty, at_random, flags, serving

from model.data.scored import open_scored
from model.prepare import sample_texts
from pipeline import decide, report, run
from pipeline.beam import graph
from pipeline.config import load
from pipeline.runs import scoring_run
from quality_classifier.audit import AuditConfig, audit_run
from winnow.filesystem import storage
from winnow.object_stores import lease, object_store, store_gcs, store_s3

pytestmark = pytest.mark.slow

TRIALS = int(os.environ.get("STORE_TRIALS", "1"))
"""How often a run is killed or served by a faulty store: STORE_TRIALS=50 pytest tests/… tries all
that there is to try."""

REQUESTS = 150
"""A run here makes some more."""

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "pipeline" / "run.py"
RULE = ["--filter=web", "--alpha=2", "--seed=5", "--direct_num_workers=2"]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Inputs, one of them damaged, and undisturbed runs on the local disk."""
    folder = tmp_path_factory.mktemp("stores")
    for i in range(3):
        write_jsonl(folder / "in" / "web" / f"{i}.jsonl.gz", documents(120, i))
    (folder / "in" / "web" / "3.jsonl").write_bytes(b'{"text": "whole"}\n{"text": "bro')
    write_jsonl(folder / "in" / "wiki" / "0.jsonl", documents(60, 0, "wiki"))
    write_classifier(folder / "in" / "classifier")
    notes = [{"id": row["id"], "n": i} for i, row in enumerate(documents(120)) if "id" in row]
    write_jsonl(folder / "in" / "notes" / "0.jsonl", notes)
    run.main([*inputs(f"{folder}/in"), *RULE, f"--output={folder}/scored"])
    decide.main([f"--scored={folder}/scored", "--alpha=1", f"--output={folder}/anew"])
    return folder


def inputs(folder):
    return [
        f"--source=web={folder}/**/*.gz",
        f"--source=web={folder}/web/[0-9].jsonl",
        f"--source=wiki={folder}/wiki/*",
        f"--join=notes={folder}/notes/*",
        f"--classifier={folder}/classifier",
    ]


@pytest.fixture(scope="module", params=["s3", "gs"])
def store(request, here):
    """A store with the inputs in it: its scheme and port."""
    with serving(request.param) as port, pytest.MonkeyPatch.context() as patch:
        object_store.configure(PipelineOptions(flags(request.param, port, patch.setenv)))
        for path in (here / "in").rglob("*"):
            if path.is_file():
                name = path.relative_to(here)
                storage.write_bytes(f"{request.param}://bucket/{name}", path.read_bytes())
        yield request.param, port


@pytest.fixture
def command(store, monkeypatch):
    """Gives a run's flags, by way of a proxy's port if there is one; and where it writes to."""
    scheme, port = store
    output = f"{scheme}://bucket/{uuid.uuid4().hex}"

    def command(port=port):
        beam = flags(scheme, port, monkeypatch.setenv)
        return [*inputs(f"{scheme}://bucket/in"), *RULE, *beam, f"--output={output}"]

    monkeypatch.setattr(store_s3, "WAITS", (0.05, 0.1, 0.2, 0.2, 0.2, 0.2))
    quick = store_gcs.RETRY.with_delay(initial=0.05, maximum=0.2).with_timeout(5)
    monkeypatch.setattr(store_gcs, "RETRY", quick)
    monkeypatch.setattr(lease, "PATIENCE", 2.0)
    command()
    return command, output


def everything(folder, target):
    """All files of a folder in a store, copied to a local one; by relative path, their digests."""
    with storage.local_copy(folder) as copy:
        os.rename(copy, target)
    return fingerprints(target)


def same(output, expected, target):
    """Shards and statistics to the byte; the rest too, but for the names of the inputs."""
    found, wanted = everything(output, target), fingerprints(expected)
    assert found.keys() == wanted.keys()
    exact = [n for n in wanted if n.startswith(("shards/", "statistics/"))]
    assert len(exact) > 5
    assert {name: found[name] for name in exact} == {name: wanted[name] for name in exact}
    here, there = (json.loads((f / "manifest.json").read_text()) for f in (expected, target))
    assert there["accounting"] == here["accounting"]
    assert there["statistics"] == here["statistics"]
    assert there["rule"] == here["rule"]
    for quarantined in (expected / "quarantine").iterdir():
        lines = (target / "quarantine" / quarantined.name).read_text()
        bucket = output[: output.rindex("/")]
        assert lines.replace(f"{bucket}/in/", f"{expected.parent}/in/") == quarantined.read_text()


def test_a_run_in_a_store_is_the_run_on_a_disk(here, store, command, tmp_path, capsys):
    scheme, _ = store
    command, output = command
    run.main(command())
    same(output, here / "scored", tmp_path / "scored")
    beam = [flag for flag in command() if flag.startswith("--s3")]
    anew = f"{scheme}://bucket/{uuid.uuid4().hex}"
    decide.main([f"--scored={output}", "--alpha=1", *beam, f"--output={anew}"])
    same(anew, here / "anew", tmp_path / "anew")
    page = storage.read_bytes(f"{output}/report.html")
    storage.remove(f"{output}/report.html")
    report.main([output, *beam])
    assert storage.read_bytes(f"{output}/report.html") == page
    storage.write_bytes(f"{output}/_work/run.json", b"of a run that was killed at its very end")
    run.main([*command(), "--resume"])
    assert storage.listing(f"{output}/_work") == []
    assert "is complete already" in capsys.readouterr().out
    with pytest.raises(ValueError, match="finished run"):
        run.main(command())


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_options_reach_workers_and_secrets_reach_nobody_else(
    quick_python, here, store, command, tmp_path
):
    """Two worker processes, which know the store by the options alone."""
    command, output = command
    secrets = ["AKIDFORTESTS", "notasecret", "tokenfortests"]
    more = ["--direct_running_mode=multi_processing", "--s3_session_token=tokenfortests"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS")}
    done = subprocess.run(
        [quick_python, RUN, *command(), *more],
        capture_output=True,
        text=True,
        env=environment | {"AWS_EC2_METADATA_DISABLED": "true"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    same(output, here / "scored", tmp_path / "scored")
    written = [path.read_bytes() for path in (tmp_path / "scored").rglob("*") if path.is_file()]
    for secret in secrets:
        assert secret not in done.stdout + done.stderr
        assert not any(secret.encode() in content for content in written)


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_what_is_refused_is_said_without_secrets(quick_python, store, command):
    command, _ = command
    with pytest.raises(ValueError, match="--s3_secret") as caught:
        run.main([*command(), "--s3_secret_acess_key=notasecret", "--s3_token", "notasecret"])
    assert "notasecret" not in str(caught.value)

    def forbidden(number, method, path):
        return "403"

    with Faulty(store[1], forbidden) as proxy:
        done = subprocess.run(
            [quick_python, RUN, *command(proxy.port)], capture_output=True, text=True
        )
    assert done.returncode == 1
    assert "error: s3://bucket/in" in done.stderr
    assert "Traceback" not in done.stderr
    assert "notasecret" not in done.stdout + done.stderr
    assert "AKID" not in done.stdout + done.stderr


@pytest.mark.parametrize("seed", range(1, 1 + TRIALS))
def test_a_faulty_store_gives_the_same_bytes_or_an_error_and_a_resume(
    here, store, command, tmp_path, seed
):
    command, output = command
    with Faulty(store[1], at_random(seed, 0.15)) as proxy:
        resume, said = [], "://bucket/"
        while True:
            try:
                run.main([*command(proxy.port), *resume])
                break
            except (OSError, RuntimeError) as error:
                said = str(error)
                resume = ["--resume"]
            assert "://bucket/" in said
        assert sum(n for kind, n in proxy.done.items() if kind) > 10
    object_store.configure(PipelineOptions([f for f in command() if f.startswith("--s3")]))
    same(output, here / "scored", tmp_path / "scored")


@pytest.mark.parametrize("moment", random.Random(7).sample(range(REQUESTS), TRIALS))
def test_killed_at_any_request_and_resumed(quick_python, here, store, command, tmp_path, moment):
    command, output = command
    child = None

    def fault(number, method, path):
        if number == moment:
            os.kill(child.pid, signal.SIGKILL)
            return "refused"
        return None

    with Faulty(store[1], fault) as proxy:
        child = subprocess.Popen(
            [quick_python, RUN, *command(proxy.port)], stderr=subprocess.DEVNULL
        )
        assert child.wait() == -signal.SIGKILL
    command()
    run.main([*command(), "--resume"])
    same(output, here / "scored", tmp_path / "scored")


def test_a_store_that_goes_away_ends_the_run_and_a_resume_completes_it(
    here, store, command, tmp_path
):
    command, output = command
    with Faulty(store[1], lambda number, *request: "503" if number > 60 else None) as proxy:
        with pytest.raises((OSError, RuntimeError), match="://bucket/"):
            run.main(command(proxy.port))
    object_store.configure(PipelineOptions([f for f in command() if f.startswith("--s3")]))
    storage.remove(f"{output}/.lock")  # which could not be done then
    with pytest.raises(ValueError, match="--resume"):
        run.main(command())
    run.main([*command(), "--resume"])
    same(output, here / "scored", tmp_path / "scored")


def test_two_runs_into_one_output(here, store, command, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.2)
    command, output = command
    ends = []

    def start():
        try:
            run.main([*command(), "--resume"])
            ends.append("done")
        except ValueError as error:
            ends.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [end for end in ends if end != "done"]
    assert len(refused) < 2
    assert all("another run is writing" in end for end in refused)
    with contextlib.suppress(ValueError):
        bucket, key = object_store.locate(f"{output}/.lock")
        assert bucket.stat(key) is None
    same(output, here / "scored", tmp_path / "scored")


def secretive(scheme, port, setenv):
    """As :func:`flags`, with what is secret in variables."""
    secrets = ("--s3_access_key_id", "--s3_secret_access_key")
    return [flag for flag in flags(scheme, port, setenv) if not flag.startswith(secrets)]


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_workers_started_by_hand_learn_from_the_steps_where_the_store_is(
    here, store, tmp_path, monkeypatch
):
    """All that they have themselves is the key, as they would from their machine's role."""
    monkeypatch.delenv("WINNOW_BEAM_OPTIONS")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS")}
    keys = {"AWS_ACCESS_KEY_ID": "AKIDFORTESTS", "AWS_SECRET_ACCESS_KEY": "notasecret"}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    beam = secretive(*store, monkeypatch.setenv)
    output = f"s3://bucket/{uuid.uuid4().hex}"
    log = tmp_path / "pool" / "log.txt"
    log.parent.mkdir()
    with job_service() as jobs, worker_pool(log, env=environment | keys) as pool:
        external = [
            "--runner=PortableRunner",
            f"--job_endpoint={jobs}",
            "--environment_type=EXTERNAL",
            f"--environment_config={pool}",
        ]
        run.main([*inputs("s3://bucket/in"), *RULE, *beam, *external, f"--output={output}"])
        assert started(log) == 2
    same(output, here / "scored", tmp_path / "scored")


def test_what_follows_a_run_reads_where_it_wrote(store, here):
    scored = f"{store[0]}://bucket/{uuid.uuid4().hex}"
    for path in (here / "scored").rglob("*"):
        if path.is_file():
            name = path.relative_to(here / "scored").as_posix()
            storage.write_bytes(f"{scored}/{name}", path.read_bytes())
    far, near = open_scored(scored), open_scored(str(here / "scored"))
    assert [shard.name for shard in far.shards] == [shard.name for shard in near.shards]
    for one, other in zip(far.shards, near.shards, strict=True):
        one.check()
        with one.on_disk() as copy:
            assert Path(copy.path).read_bytes() == Path(other.path).read_bytes()
    assert list(sample_texts(far, 0.1, 10**6)) == list(sample_texts(near, 0.1, 10**6))
    audits = [
        audit_run(AuditConfig(folder, ["length"], 9.0, 0.5))[0] for folder in (scored, near.folder)
    ]
    assert audits[0].equals(audits[1])


def _unpack(code):
    """Beam's pickles are of bzip2 and base64."""
    return bz2.BZ2Decompressor().decompress(base64.b64decode(code[: len(code) // 4 * 4]))


def test_no_step_of_the_graph_holds_a_secret(here, monkeypatch, tmp_path):
    monkeypatch.delenv("WINNOW_BEAM_OPTIONS", raising=False)
    beam = [*flags("s3", 1, monkeypatch.setenv), "--s3_session_token=tokenfortests"]
    object_store.configure(PipelineOptions(beam))
    config, resume, _ = load([*inputs(here / "in"), *RULE, f"--output={tmp_path}/scored"])
    job, about = scoring_run.describe(config, [], resume)
    made = Pipeline()
    graph.build(made, 0, job, config.decision, about)
    steps = made.to_runner_api().components.transforms.values()
    packed = [re.findall(rb"QlpoO[A-Za-z0-9+/]+", step.spec.payload) for step in steps]
    pickled = b"".join(_unpack(code) for codes in packed for code in codes)
    assert b"localhost:1" in pickled
    for secret in ("AKIDFORTESTS", "notasecret", "tokenfortests"):
        assert secret.encode() not in pickled
