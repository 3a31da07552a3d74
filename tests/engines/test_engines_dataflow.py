"""``--runner=DataflowRunner`` against stand-ins for Dataflow and its storage on this machine.

The submitted job is checked, and run from what was staged alone; docs/engines.md says what that
does not show. The workers' environment borrows third-party packages from this one; with

    WINNOW_EMPTY_ENVIRONMENT=1 pytest tests/engines/test_engines_dataflow.py

they are installed by hash from the package index, as Beam's container does it (minutes).
"""

import json
import os
import re
import subprocess
import zipfile
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.io.gcp.gcsio import create_storage_client
from apache_beam.options.pipeline_options import PipelineOptions
from corpora import fingerprints
from engines_dataflow import fetch_staged, pipeline_of, serving
from engines_services import ROOT, started
from store_servers import serving as store

from pipeline import run
from pipeline.beam import engine, staging
from pipeline.settings.flags import parser
from quality_classifier.scoring import load_classifier
from winnow.filesystem import storage

pytestmark = pytest.mark.slow

BUCKET = "gs://dataflow-test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dataflow")


@pytest.fixture(scope="module")
def dataflow(inputs, folder):
    """The stand-in, with the inputs in its bucket; ``flags`` are those of a run over them."""
    empty = bool(os.environ.get("WINNOW_EMPTY_ENVIRONMENT"))
    with store("gs") as port, serving(folder, port, dependencies=empty) as service:
        client = create_storage_client(PipelineOptions([]))
        client.create_bucket(BUCKET.removeprefix("gs://"))
        service.flags = []
        for flag in inputs:
            name, _, pattern = flag.rpartition("=")
            if name.startswith("--source"):
                source = Path(pattern).parent
                for path in source.iterdir():
                    storage.write_bytes(f"{BUCKET}/{source.name}/{path.name}", path.read_bytes())
                flag = f"{name}={BUCKET}/{source.name}/*"
            service.flags.append(flag)
        yield service


def submit(python, dataflow, *flags):
    command = [python, str(ROOT / "pipeline" / "run.py"), *dataflow.flags]
    command += ["--runner=DataflowRunner", "--project=p", "--region=europe-west1"]
    command += [f"--temp_location={BUCKET}/temp", f"--dataflow_endpoint={dataflow.endpoint}"]
    return subprocess.run([*command, *flags], capture_output=True, text=True, cwd="/")


def without_moment(job):
    """A job without time stamps, names made from them, and where it was written."""
    own = {"pipelineProtoHash", "dataflow_job_file"}
    found = job["environment"]["sdkPipelineOptions"]
    shown = [item for item in found["display_data"] if item["key"] not in own]
    wanted = {name: value for name, value in found["options"].items() if name not in own}
    options = {**found, "display_data": shown, "options": wanted}
    text = json.dumps({**job["environment"], "sdkPipelineOptions": options}, sort_keys=True)
    return re.sub(r"NAME\.\d+\.\d+", "NAME", text.replace(job["name"], "NAME"))


@pytest.fixture(scope="module")
def submitted(quick_python, dataflow):
    """A run from the command line to its end: what it printed, its job and its graph."""
    machines = ["--machine_type=n2-standard-8", "--max_num_workers=40"]
    before = set(dataflow.jobs)  # of other tests
    done = submit(quick_python, dataflow, f"--output={BUCKET}/scored", "--alpha=2", *machines)
    assert done.returncode == 0, done.stderr
    (job,) = (job for name, job in dataflow.jobs.items() if name not in before)
    return done.stdout, job, pipeline_of(job)


def test_workers_with_nothing_but_what_was_staged_write_what_the_direct_runner_does(
    dataflow, submitted, folder, tmp_path
):
    run.main([*dataflow.flags, "--alpha=2", f"--output={tmp_path}/direct"])
    with storage.local_copy(f"{BUCKET}/scored") as copy:
        assert fingerprints(Path(copy)) == fingerprints(tmp_path / "direct")
    assert started(folder / "1" / "pool" / "log.txt") == 2
    python = str(folder / "1" / "environment" / "bin" / "python")
    command = [python, "-E", "-c", "import pipeline; print(pipeline.__file__)"]
    found = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert found.stdout.startswith(str(folder / "1" / "environment"))
    printed, *_ = submitted
    assert "gs://dataflow-test/scored/report.html" in printed


def test_the_job_names_its_steps_and_machines(submitted):
    _, job, graph = submitted
    assert job["environment"]["version"]["job_type"] == "FNAPI_BATCH"
    names = {transform.unique_name for transform in graph.components.transforms.values()}
    assert names >= {"Tasks", "SpreadTasks", "ScoreTasks", "CountDuplicateIds", "WriteOutput"}
    (pool,) = job["environment"]["workerPools"]
    assert pool["machineType"] == "n2-standard-8"
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 40
    assert pool["numThreadsPerWorker"] == 1
    (image,) = pool["sdkHarnessContainerImages"]
    assert image["containerImage"].endswith(f"beam_python3.11_sdk:{beam.__version__}")


def test_our_wheel_the_pinned_versions_and_the_classifier_are_staged(inputs, submitted, tmp_path):
    _, _, graph = submitted
    (wheel,) = (name for name in fetch_staged(graph, tmp_path) if name.endswith(".whl"))
    assert (tmp_path / "extra_packages.txt").read_text().split() == [wheel]
    assert (tmp_path / "requirements.txt").read_bytes() == staging.PINS.read_bytes()
    in_wheel = {
        name for name in zipfile.ZipFile(tmp_path / wheel).namelist() if ".dist-info/" not in name
    }
    ours = ("ablations", "conf", "model", "pipeline", "quality_classifier", "winnow")
    files = (path for name in ours for path in (ROOT / name).rglob("*") if path.is_file())
    known = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert in_wheel == known

    local = Path(inputs[-1].removeprefix("--classifier="))
    fingerprint = load_classifier(str(local)).fingerprint
    with storage.local_copy(f"{BUCKET}/temp/classifiers/{fingerprint}") as copy:
        assert fingerprints(Path(copy)) == fingerprints(local)


def test_a_template_is_made_and_not_waited_for(quick_python, dataflow):
    before = dict(dataflow.jobs)
    storage.write_bytes(f"{BUCKET}/run.yaml", b"alpha: 2\n")
    place = f"{BUCKET}/template/job_object"
    flags = [f"--config={BUCKET}/run.yaml", f"--output={BUCKET}/made"]
    flags += [f"--template_location={place}", "--sdk_container_image=image"]
    done = submit(quick_python, dataflow, *flags)
    assert done.returncode == 0, done.stderr
    assert "gs://dataflow-test/made is complete once it has manifest.json" in done.stdout
    assert dataflow.jobs == before
    graph = pipeline_of(json.loads(storage.read_bytes(place)))
    names = {transform.unique_name for transform in graph.components.transforms.values()}
    assert "ScoreTasks" in names


def test_the_parameters_of_the_flex_template_are_flags_that_take_a_value():
    specification = json.loads((ROOT / "deploy" / "flex_template.json").read_text())
    names = [parameter["name"] for parameter in specification["parameters"]]
    known = parser().parse_known_args([f"--{name}=1" for name in names])
    beams = PipelineOptions(known[1]).get_all_options(drop_default=True)
    assert {*vars(known[0]), *beams} == set(names)


def test_an_image_has_it_all_and_a_failed_job_says_why(
    quick_python, dataflow, monkeypatch, tmp_path
):
    def fail(job):
        raise RuntimeError("Traceback ...\nValueError: the disk is full [while running 'Score']")

    monkeypatch.setattr(dataflow, "run", fail)
    image = "europe-docker.pkg.dev/p/winnow:1"
    flags = [f"--output={BUCKET}/failed", f"--sdk_container_image={image}"]
    done = submit(quick_python, dataflow, *flags)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("error: the disk is full")
    job = list(dataflow.jobs.values())[-1]
    (pool,) = job["environment"]["workerPools"]
    assert [found["containerImage"] for found in pool["sdkHarnessContainerImages"]] == [image]
    assert fetch_staged(pipeline_of(job), tmp_path) == ["submission_environment_dependencies.txt"]

    # A dry run has made the same job.
    planned = tmp_path / "job.json"
    done = submit(quick_python, dataflow, *flags, "--dry-run", f"--dataflow_job_file={planned}")
    assert done.returncode == 0, done.stderr
    assert without_moment(json.loads(planned.read_text())) == without_moment(job)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output=scored"], "^scored is on this machine"),
        (["--source=web={inputs}/wiki/*"], "wiki/. is on this machine"),
        (["--config={inputs}/steps.yaml"], "blocked.txt is on this machine"),
        ([], "--temp_location gs://"),
    ],
)
def test_what_workers_could_not_reach_is_refused(dataflow, inputs, flags, message):
    local = Path(inputs[0].partition("=")[2].partition("=")[2]).parent.parent
    blocked = local / "blocked.txt"
    blocked.write_text("evil.example\n")
    (local / "steps.yaml").write_text(f"steps: {{url_blocklist: {{domains: [{blocked}]}}}}")
    before = dict(dataflow.jobs)
    own = [flag.format(inputs=local) for flag in flags]
    runner = ["--runner=DataflowRunner", f"--output={BUCKET}/refused"]
    with pytest.raises(ValueError, match=message):
        run.main([*dataflow.flags, *runner, *own])
    assert dataflow.jobs == before
    assert storage.listing(f"{BUCKET}/refused/shards") == []


def test_nothing_is_staged_for_other_runners_images_and_setup_files(tmp_path):
    for flags in (
        [],
        ["--runner=PortableRunner", "--job_endpoint=localhost:1"],
        ["--runner=DataflowRunner", "--sdk_container_image=image"],
        ["--runner=DataflowRunner", "--setup_file=setup.py"],
    ):
        options = engine.options(flags)
        before = options.get_all_options()
        with staging.packages(options):
            assert options.get_all_options() == before
    options = engine.options(["--runner=DataflowRunner", "--requirements_file=own.txt"])
    with staging.packages(options):
        found = options.get_all_options()
        assert found["requirements_file"] == "own.txt"
        assert found["requirements_cache"] is None
        assert [Path(path).suffix for path in found["extra_packages"]] == [".whl"]
