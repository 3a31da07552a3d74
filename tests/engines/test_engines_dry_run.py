"""``winnow run --dry-run``, its estimate, and the Flex Template against Google's schema."""

import json
import re
import socket
from pathlib import Path

import pytest
from apache_beam.runners.worker import statesampler
from engines_services import ROOT

from pipeline import run
from pipeline.beam import engine
from pipeline.beam.dry_run import Planned
from pipeline.beam.transforms import set_up
from pipeline.runs import dataflow_estimate
from pipeline.runs.dataflow_estimate import Machine, Work
from winnow import heartbeat

BUCKET = "gs://bucket"
FLAGS = [
    *("--filter=web", "--alpha=2", f"--output={BUCKET}/out", "--runner=DataflowRunner"),
    *("--project=p-1", "--region=europe-west1", f"--temp_location={BUCKET}/temp", "--dry-run"),
    *("--sdk_container_image=image", f"--source=web={BUCKET}/crawl/*.warc.wet.gz"),
]


@pytest.fixture
def classifier(inputs):
    return Path(inputs[-1].partition("=")[2])


@pytest.fixture
def no_network(monkeypatch):
    """No connection, and no credentials."""

    def refuse(*_):
        raise AssertionError("a dry run reaches for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
def test_a_dry_run_says_what_would_be_staged_started_and_used(classifier, tmp_path, capsys):
    flags = [f"--classifier={classifier}", "--machine_type=n2-standard-8", "--max_num_workers=40"]
    flags += ["--stall-minutes=2.5", "--assume=input_bytes=1e12"]
    flags += ["--dataflow_service_options=a_service_option"]
    run.main([*FLAGS, *flags, f"--dataflow_job_file={tmp_path}/job.json"])
    printed = capsys.readouterr().out
    job = json.loads((tmp_path / "job.json").read_text())
    options = job["environment"]["sdkPipelineOptions"]["options"]
    assert options["element_processing_timeout_minutes"] == 3
    assert "use_runner_v2" in job["environment"]["experiments"]
    assert not {"dry_run", "no_auth"} & {name for name, value in options.items() if value}
    assert re.search(r"^workers .*n2-standard-8, up to 40;", printed, re.MULTILINE)
    assert re.search(r"^container +image$", printed, re.MULTILINE)
    assert re.search(r"^service options +a_service_option$", printed, re.MULTILINE)
    sizes = dict(re.findall(r"^ +([\d,]+)  (gs://\S+)$", printed, re.MULTILINE))
    places = {place.rpartition("/")[2]: size.replace(",", "") for size, place in sizes.items()}
    for path in classifier.rglob("*"):
        assert places[path.name] == str(path.stat().st_size)
    assert {"pipeline.pb", "submission_environment_dependencies.txt"} <= places.keys()
    # 2.2 TB of text at 65 MB/s a core, half as much again, on 320 cores; four minutes to start.
    hours = 2.2e12 / 65e6 / 3600 * 1.5
    cores = hours + 320 * 4 / 60
    used = dict(re.findall(r"^(cores|memory|time) +([\d.]+)", printed, re.MULTILINE))
    assert float(used["cores"]) == pytest.approx(cores, rel=5e-3)
    assert float(used["memory"]) == pytest.approx(4 * cores, rel=5e-3)
    assert float(used["time"]) == pytest.approx(hours / 320 + 4 / 60, rel=5e-3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--runner=DirectRunner"], "add --runner DataflowRunner"),
        (["--assume=inputbytes=1"], "did you mean input_bytes"),
        (["--assume=input_bytes=much"], "should be a number"),
        (["--assume=price_vcpu_hour=-1"], "more than 0"),
        (["--assume=input_bytes"], "NAME=VALUE"),
        (["--machine_type=x9-standard-8"], "--assume gib_per_vcpu"),
        (["--assume=input_bytes=1", "--job_name=Not a name"], "Invalid job_name"),
        (["--assume=input_bytes=1", "--num_workers=3", "--max_num_workers=2"], "cannot exceed"),
        (["--output=here"], "is on this machine"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_what_dataflow_or_we_would_refuse_is_refused(classifier, flags, message):
    with pytest.raises(ValueError, match=message):
        run.main([*FLAGS, f"--classifier={classifier}", *flags])


def test_machines_are_known_by_their_names():
    assumed = dataflow_estimate.assumptions()
    machine = dataflow_estimate.machine
    assert machine("n1-standard-4", None, assumed) == Machine(4, 15.0, 25)
    assert machine("n2d-highmem-16", 100, assumed) == Machine(16, 128, 100)
    assert machine("n2-custom-6-10240", None, assumed) == Machine(6, 10.0, 25)
    assert machine("custom-2-4096", None, assumed) == Machine(2, 4.0, 25)
    given = dataflow_estimate.assumptions(["gib_per_vcpu=2"])
    assert machine("x9-turbo-8", None, given) == Machine(8, 16.0, 25)


def test_the_estimate_in_closed_form():
    given = "text_per_input_byte=2 text_bytes_per_document=1000 overhead=1 late=2 start_minutes=6"
    given += " text_bytes_per_core_second=1e6 shuffle_bytes_per_task=1000"
    given += " shuffle_bytes_per_solved_task=5000 shuffle_bytes_per_document=8"
    given += " shuffle_bytes_per_deduplicated=24 shuffle_bytes_per_band=16"
    given += " price_vcpu_hour=1 price_gib_hour=10 price_disk_gb_hour=100"
    assumed = dataflow_estimate.assumptions(given.split())
    # An hour of one core, doubled for the second pass; 3 tasks keep two machines of 2 cores busy.
    work = Work(1.8e9, 3, solved=True, deduplicate=True, bands=14)
    worker = Machine(2, 8.0, 50.0)
    found = dataflow_estimate.estimate(work, assumed, worker, 5)
    assert found.documents == pytest.approx(3.6e6)
    assert found.workers == 2
    assert found.vcpu_hours == pytest.approx(2 + 2 * 2 * 0.1)
    assert found.gib_hours == pytest.approx(4 * found.vcpu_hours)
    assert found.disk_gb_hours == pytest.approx(25 * found.vcpu_hours)
    assert found.hours == pytest.approx(2 / 4 + 0.1)
    assert found.shuffle_gb == pytest.approx((3 * 6000 + 3.6e6 * (8 + 24 + 16 * 14)) / 1e9)
    assert dataflow_estimate.cost(found, assumed) is None  # the shuffle has no price
    priced = assumed | {"price_shuffle_gb": 1000}
    shuffled = 1000 * found.shuffle_gb
    expected = found.vcpu_hours * (1 + 10 * 4 + 100 * 25) + shuffled
    assert dataflow_estimate.cost(found, priced) == pytest.approx(expected)
    bare = dataflow_estimate.estimate(work, assumed, None, None)
    assert (bare.vcpu_hours, bare.gib_hours, bare.hours) == (pytest.approx(2), None, None)
    assert dataflow_estimate.cost(bare, priced) is None


def test_a_heartbeat_counts_as_progress_of_the_element_at_hand(monkeypatch):
    """Beam ends a worker whose state does not change; a task is one element."""
    monkeypatch.setattr(heartbeat, "_listener", None)
    set_up({})
    tracker = statesampler.for_test()
    try:
        with tracker.scoped_state("step", "process"):
            before, state = tracker.get_info().transition_count, tracker.current_state()
            heartbeat.beat()
            heartbeat.count("score", 1, 1, 1, 1)
            assert tracker.get_info().transition_count == before + 4
            assert tracker.current_state() is state
    finally:
        statesampler.set_current_tracker(None)
    heartbeat.beat()  # in a thread that Beam does not watch


def test_dataflow_ends_what_stalls_unless_told_otherwise():
    def minutes(*flags):
        options = engine.options(flags, 0.2).get_all_options()
        return options["element_processing_timeout_minutes"]

    assert minutes("--runner=DataflowRunner") == 1
    assert minutes("--runner=DataflowRunner", "--element_processing_timeout_minutes=7") == 7
    assert minutes() is None


def test_the_flex_template_is_as_googles_schema_has_it():
    """Parsed strictly into the service's protocol buffer."""
    from google.cloud import dataflow_v1beta3  # here, since it takes long
    from google.protobuf import json_format

    specification = json.loads((ROOT / "deploy" / "flex_template.json").read_text())
    found = dataflow_v1beta3.TemplateMetadata.pb()()
    json_format.ParseDict(specification, found)
    assert found.name
    assert not found.streaming
    names = [parameter.name for parameter in found.parameters]
    assert len(set(names)) == len(names)
    for parameter in found.parameters:
        assert re.fullmatch(r"[a-zA-Z][\w-]*", parameter.name)
        assert parameter.label
        assert parameter.help_text
        for expression in parameter.regexes:
            re.compile(expression)
            for example in re.findall(r"as (\S+://\S+[^\s.,;:]|\w+=\S+)", parameter.help_text):
                assert re.fullmatch(expression, example), (parameter.name, example)
    with pytest.raises(json_format.ParseError):
        json_format.ParseDict(specification | {"parameter": []}, found)


def test_a_job_that_is_too_large_is_refused():
    Planned(graph_bytes=10 << 20).check_size()
    with pytest.raises(ValueError, match="10,485,761: name long lists"):
        Planned(graph_bytes=(10 << 20) + 1).check_size()
