"""Beam's job servers, which stand between us and Flink, Spark or Prism."""

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

# How a job server reports a failed job; the Java exception behind it goes on for pages.
_FAILED = re.compile(r"Pipeline \S+ failed in state [A-Z]+: (.*)")
_CAUSE = re.compile(r"^\s*Caused by: (.*)$", re.MULTILINE)
_TWICE = re.compile(r"\b([\w.$]+: )\1+")  # Flink names an exception before its own message
# gRPC's word to the engine when one of our Python workers is gone.
_LOST = "StatusRuntimeException: CANCELLED"


def options(endpoint: str) -> set[str]:
    """Names of the options that the engine behind ``endpoint`` has, without dashes.

    Raises:
        ConnectionError: nothing answers there.
    """
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
    """What made a job fail, in a line, by what its server says; None if that is something else."""
    found = _FAILED.match(message)
    if found is None:
        return None
    parts = (found[1], *_CAUSE.findall(message))
    first, *causes = (_TWICE.sub(r"\1", text).strip().rstrip(".") for text in parts)
    why = first if not causes or causes[-1] == first else f"{first} ({causes[-1]})"
    return f"it lost a Python worker: {why}" if _LOST in why else why


@contextlib.contextmanager
def stopping(runner: Any) -> Iterator[None]:
    """Stop the job server that a runner of Beam starts (Prism's, Flink's, Spark's).

    Beam stops it when the interpreter exits, which :func:`pipeline.beam.engine.exit_clearly` keeps
    it from doing.
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
    """Cancel the job of Beam's ``result`` if the block is interrupted; note which it is in the file
    ``note``, for :func:`end_earlier`.
    """
    endpoint, job = options.view_as(PortableOptions).job_endpoint, getattr(result, "_job_id", None)
    if note and endpoint and job:
        storage.write_json(note, {"endpoint": endpoint, "job": job})
    try:
        yield
    except KeyboardInterrupt:
        console.say("cancelling the job on the engine")
        result.cancel()
        raise
    if note and storage.exists(note):  # a quick job may have cleared its folder before
        storage.remove(note)
        storage.remove_if_empty(note.rpartition("/")[0])


def end_earlier(note: str) -> None:
    """Cancel the job of a run whose driver was killed, if it still runs: it would go on writing.

    If the server is gone, or is another one by now, that is said: the engine may still have the
    job.

    Raises:
        TimeoutError: it does not end.
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
    """Whether a job has failed that its server still takes for running.

    Beam's Java servers tell a driver of the failure before they note it. With a driver that is gone
    they stop there, so the state stays RUNNING and nothing cancels it; but the messages are kept,
    the first one the stack trace at DEBUG. They send no others. (JobInvocation of Beam 2.62)
    """
    request = beam_job_api_pb2.JobMessagesRequest(job_id=job)
    try:
        for one in server.GetMessageStream(request, timeout=_HISTORY_SECONDS):
            if one.message_response.importance in _OF_FAILURES:
                return True
    except grpc.RpcError as error:  # earlier messages come at once, and then it waits for new ones
        if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
    return False
