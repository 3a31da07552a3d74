"""Jobs that outlive their driver, on a gRPC server that knows the states of some."""

import concurrent.futures
import time

import grpc
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.portability import portable_runner

from pipeline.beam import job_server

RUNNING, DONE, CANCELLED = (
    beam_job_api_pb2.JobState.Enum.Value(name) for name in ("RUNNING", "DONE", "CANCELLED")
)


class Service(beam_job_api_pb2_grpc.JobServiceServicer):
    """Knows its jobs' states, and cancels."""

    def __init__(self):
        self.states = {"one": RUNNING, "other": RUNNING, "done": DONE}
        self.messages = {}

    def GetState(self, request, context=None):
        if request.job_id not in self.states:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown")
        return beam_job_api_pb2.JobStateEvent(state=self.states[request.job_id])

    def Cancel(self, request, context=None):
        self.states[request.job_id] = CANCELLED
        return beam_job_api_pb2.CancelJobResponse(state=CANCELLED)

    def GetMessageStream(self, request, context=None):
        state = beam_job_api_pb2.JobStateEvent(state=self.states[request.job_id])
        yield beam_job_api_pb2.JobMessagesResponse(state_response=state)
        for importance, text in self.messages.get(request.job_id, []):
            message = beam_job_api_pb2.JobMessage(message_text=text, importance=importance)
            yield beam_job_api_pb2.JobMessagesResponse(message_response=message)
        while context.is_active():  # as the real one, until the job is over
            time.sleep(0.01)


@pytest.fixture
def service():
    """A service, and its address."""
    service, server = Service(), grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(service, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield service, f"localhost:{port}"
    server.stop(None)


def follow(address, job, note, ending=None):
    """Follow a job until ``ending`` is raised."""
    stub = beam_job_api_pb2_grpc.JobServiceStub(grpc.insecure_channel(address))
    result = portable_runner.PipelineResult(stub, job, iter(()), iter(()))
    options = PipelineOptions([f"--job_endpoint={address}"])
    with job_server.followed(result, options, note):
        if ending:
            raise ending


def test_an_interrupt_cancels_the_job(service, tmp_path):
    service, address = service
    with pytest.raises(KeyboardInterrupt):
        follow(address, "one", str(tmp_path / "job.json"), KeyboardInterrupt)
    assert service.states == {"one": CANCELLED, "other": RUNNING, "done": DONE}


def test_the_job_of_a_killed_driver_is_cancelled_before_the_run_goes_on(service, tmp_path, capsys):
    service, address = service
    note = str(tmp_path / "job.json")
    with pytest.raises(SystemExit):  # as if it had been killed
        follow(address, "one", note, SystemExit)
    for _ in range(2):  # the second time it is over
        job_server.end_earlier(note)
        assert service.states == {"one": CANCELLED, "other": RUNNING, "done": DONE}
    said = capsys.readouterr().err
    assert said == "cancelling the job that the earlier run left on the engine (one)\n"


@pytest.mark.parametrize(("importance", "cancelled"), [("DEBUG", False), ("BASIC", True)])
def test_a_job_that_failed_after_its_driver_died_is_over(
    service, tmp_path, capsys, monkeypatch, importance, cancelled
):
    """Beam's Java server leaves such a job RUNNING, whoever cancels it."""
    service, address = service
    monkeypatch.setattr(job_server, "_HISTORY_SECONDS", 1)
    kind = f"JOB_MESSAGE_{importance}"
    service.messages["one"] = [(kind, "java.lang.RuntimeException: a task manager is lost")]
    note = str(tmp_path / "job.json")
    with pytest.raises(SystemExit):
        follow(address, "one", note, SystemExit)
    job_server.end_earlier(note)
    assert (service.states["one"] == CANCELLED) is cancelled
    assert ("cancelling" in capsys.readouterr().err) is cancelled


def test_a_job_that_ended_leaves_no_note(service, tmp_path):
    _, address = service
    note = tmp_path / "_work" / "job.json"
    follow(address, "done", str(note))
    assert not note.parent.exists()
    job_server.end_earlier(str(note))


def test_a_server_that_does_not_know_the_job_is_named(service, tmp_path, capsys):
    _, address = service
    note = str(tmp_path / "job.json")
    with pytest.raises(SystemExit):
        follow(address, "lost", note, SystemExit)
    job_server.end_earlier(note)
    assert capsys.readouterr().err == (
        f"the job server at {address} no longer knows the earlier run's job lost (NOT_FOUND): if"
        " its engine still runs it, cancel it there\n"
    )
