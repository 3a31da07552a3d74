"""Beam's job servers, through which we talk to Flink, Spark and Prism."""

import contextlib
import re
import time
from collections.abc import Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from winnow.commands import console
from winnow.filesystem import storage

_SECONDS = 30
_HISTORY_SECONDS = 5

_STATES = beam_job_api_pb2.JobState
_OVER = (_STATES.DONE, _STATES.FAILED, _STATES.CANCELLED, _STATES.STOPPED, _STATES.DRAINED)

_MESSAGE = beam_job_api_pb2.JobMessage
_OF_FAILURES = (_MESSAGE.JOB_MESSAGE_DEBUG, _MESSAGE.JOB_MESSAGE_ERROR)

# A job server's report of a failed job; the Java stack trace after it fills pages.
_FAILED = re.compile(r"Pipeline \S+ failed in state [A-Z]+: (.*)")
_CAUSE = re.compile(r"^\s*Caused by: (.*)$", re.MULTILINE)
_TWICE = re.compile(r"\b([\w.$]+: )\1+")  # Flink names an exception before its own message
# What gRPC tells the engine when one of our Python workers is gone.
_LOST = "StatusRuntimeException: CANCELLED"


def options(endpoint: str) -> set[str]:
    """The engine's option names, without dashes; ConnectionError if nothing answers there."""
    request = beam_job_api_pb2.DescribePipelineOptionsRequest()
    with grpc.insecure_channel(endpoint) as channel:
        server = beam_job_api_pb2_grpc.JobServiceStub(channel)
        try:
            found = server.DescribePipelineOptions(request, timeout=_SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            raise ConnectionError(
                f"no job server answers at {endpoint} ({error.code().name}): start it, or name"
                " another with --job_endpoint"
            ) from error
    return {option.name for option in found.options}


def failure(message: str) -> str | None:
    """Why a job failed, in a line, from its server's message; None if that has another form."""
    found = _FAILED.match(message)
    if found is None:
        return None
    parts = (found[1], *_CAUSE.findall(message))
    first, *causes = (_TWICE.sub(r"\1", text).strip().rstrip(".") for text in parts)
    why = first if not causes or causes[-1] == first else f"{first} ({causes[-1]})"
    return f"it lost a Python worker: {why}" if _LOST in why else why


@contextlib.contextmanager
def stopping(runner: Any) -> Iterator[None]:
    """Stop the job server that a Beam runner starts (Prism's, Flink's, Spark's).

    Beam relies on the interpreter's exit, which :func:`pipeline.beam.engine.exit_clearly` skips.
    """
    make = getattr(runner, "default_job_server", None)
    with contextlib.ExitStack() as stack:

        def remembered(options: Any) -> Any:
            assert make is not None
            server = make(options)
            stack.callback(server.stop)
            return server

        if make is not None:
            runner.default_job_server = remembered
        yield


@contextlib.contextmanager
def followed(result: Any, options: PipelineOptions, note: str | None) -> Iterator[None]:
    """Cancel the job if the block is interrupted; record it in ``note`` for :func:`end_earlier`."""
    endpoint, job = options.view_as(PortableOptions).job_endpoint, getattr(result, "_job_id", None)
    if note and endpoint and job:
        storage.write_json(note, {"endpoint": endpoint, "job": job})
    try:
        yield
    except KeyboardInterrupt:
        console.say("cancelling the job on the engine")
        result.cancel()
        raise
    if note and storage.exists(note):  # a quick job may have removed its folder already
        storage.remove(note)
        storage.remove_if_empty(note.rpartition("/")[0])


def end_earlier(note: str) -> None:
    """Cancel the job of a run whose driver was killed: it could still be writing.

    Says so if the server no longer knows the job; TimeoutError if the job does not end.
    """
    if not storage.exists(note):
        return
    noted = storage.read_json(note)
    endpoint, job = noted["endpoint"], noted["job"]
    with grpc.insecure_channel(endpoint) as channel:
        server = beam_job_api_pb2_grpc.JobServiceStub(channel)
        state = beam_job_api_pb2.GetJobStateRequest(job_id=job)
        try:
            if server.GetState(state, timeout=_SECONDS).state in _OVER or _failed(server, job):
                return
            console.say(f"cancelling the job that the earlier run left on the engine ({job})")
            server.Cancel(beam_job_api_pb2.CancelJobRequest(job_id=job), timeout=_SECONDS)
            end = time.monotonic() + _SECONDS
            while server.GetState(state, timeout=_SECONDS).state not in _OVER:
                if time.monotonic() > end:
                    raise TimeoutError(f"job {job} at {endpoint} does not end: cancel it there")
                time.sleep(0.2)
        except grpc.RpcError as error:
            console.say(
                f"the job server at {endpoint} no longer knows the earlier run's job {job}"
                f" ({error.code().name}): if its engine still runs it, cancel it there"
            )


def _failed(server: Any, job: str) -> bool:
    """Whether a job has failed that its server still reports as running.

    Beam's Java servers notify the driver of a failure before they record it. If the driver is gone
    they stop there, and the state stays RUNNING for ever. They send messages, the stack trace first
    at DEBUG, only for failures. (JobInvocation of Beam 2.62)
    """
    request = beam_job_api_pb2.JobMessagesRequest(job_id=job)
    try:
        for one in server.GetMessageStream(request, timeout=_HISTORY_SECONDS):
            if one.message_response.importance in _OF_FAILURES:
                return True
    except grpc.RpcError as error:  # past messages come at once, then the stream waits for new ones
        if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
    return False
