"""Beam's job servers, which stand between us and Flink, Spark or Prism."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

_SECONDS = 30

# How a job server reports a failed job; the Java exception behind it goes on for pages.
_FAILED = re.compile(r"Pipeline \S+ failed in state [A-Z]+: (.*)")
_CAUSE = re.compile(r"^\s*Caused by: (.*)$", re.MULTILINE)


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
    causes = _CAUSE.findall(message)
    first = found[1].strip()
    return first if not causes or causes[-1] == first else f"{first} ({causes[-1]})"


@contextlib.contextmanager
def stopping(runner: Any) -> Iterator[None]:
    """Stop the job server that a runner of Beam starts (Prism's, Flink's, Spark's).

    Beam stops it when the interpreter exits, which :func:`pipeline.beam.engine.exit_clearly` keeps
    it from doing.
    """
    make = getattr(runner, "default_job_server", None)
    started: list[Any] = []

    def remembered(options: Any) -> Any:
        assert make is not None
        started.append(make(options))
        return started[-1]

    if make is not None:
        runner.default_job_server = remembered
    try:
        yield
    finally:
        for server in started:
            server.stop()
