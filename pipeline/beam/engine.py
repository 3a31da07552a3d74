"""Runs a Beam pipeline: options, local defaults, clear errors."""

import argparse
import builtins
import concurrent.futures
import copy
import functools
import importlib
import logging
import math
import os
import re
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apache_beam as beam
import grpc  # type: ignore[import-untyped]
from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
)
from apache_beam.runners.dataflow.dataflow_runner import DataflowRuntimeException
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms import userstate
from apache_beam.transforms.environments import (
    EmbeddedPythonGrpcEnvironment,
    SubprocessSDKEnvironment,
)

from pipeline.beam import job_server, progress, staging, worker
from pipeline.readers import InputRange
from pipeline.settings import flags as ours
from winnow import heartbeat, run_log
from winnow.arguments import check_utf8, nearest
from winnow.commands import exits

_LOCAL = "FnApiRunner"

_MASTERS = {"FlinkRunner": "flink_master", "SparkRunner": "spark_master_url"}
"""The flags that locate a cluster; without them Beam downloads an engine."""

_IDLE_MILLISECONDS = 60_000
"""How long an idle worker is kept. By default Beam starts a new Python for every step."""

_HOLDS_HTML = re.compile(r"\.(?:warc|arc|x?html?)(?:\.\w+)?$", re.IGNORECASE)
_MUCH_HTML = 128 << 20
"""Stored bytes; a process takes some seconds of CPU time to start."""

# Beam asks each step about seven times for its state, inspecting all of its methods each time.
userstate.get_dofn_specs = functools.cache(userstate.get_dofn_specs)

_WORKER_DIED = "Channel closed prematurely."  # Beam's whole message

# How Beam reports our exceptions from a worker.
_WORKER_ERROR = re.compile(
    r"^(?:[\w.]+\.)?(\w+(?:Error|Exception)): (.*?)(?: \[while running .*\])?$", re.MULTILINE
)

_WHERE = re.compile(r" \[while running .*\]$")
_NESTED = re.compile(r"(\w+(?:Error|Exception)): (.*)")


class _LocalOptions(PipelineOptions):
    """Beam's options with cached views: a run asks for about 100, of 15 kinds."""

    view_as = functools.cache(PipelineOptions.view_as)


def options(flags: Sequence[str], stall_minutes: float | None = None) -> PipelineOptions:
    """Beam's options, from the flags that are not ours.

    ``DirectRunner`` (the default) means Beam's embedded ``FnApiRunner``, on all cores by default:
    the one named DirectRunner first tries to download another engine. Dataflow starts a process
    per core, which gets one task at a time, to bound its memory; after ``stall_minutes`` without
    progress it is restarted. Flink and Spark keep an idle worker for a minute.

    Raises:
        ValueError: a flag is unknown (Beam itself would only log it), or the runner is missing or
            known to give wrong results.
        ConnectionError: the job server that could know a flag does not answer.
    """
    parsed = _parsed(flags)
    given = set(ours.names_of(flags))
    runner = (parsed.runner or "").rpartition(".")[2]
    if runner == "DaskRunner":
        raise ValueError(
            "--runner DaskRunner silently drops and mixes branches of a graph, and does not"
            " distribute work (docs/engines.md): choose another"
        )
    for name, master in _MASTERS.items():
        if runner == name and not {f"--{master}", "--job_endpoint"} & given:
            raise ValueError(f"--runner {name} needs --{master} (docs/engines.md)")
    defaults: dict[str, Any] = {}
    if runner == "PrismRunner" and not {"--prism_location", "--job_endpoint"} & given:
        defaults["prism_location"] = _prism()
    keeps = runner in ("PortableRunner", *_MASTERS)
    if keeps and "--environment_cache_millis" not in given:
        defaults["environment_cache_millis"] = _IDLE_MILLISECONDS
    if runner == "DataflowRunner":
        try:
            importlib.import_module("apache_beam.runners.dataflow.internal.apiclient")
        except ImportError:
            raise ValueError("Dataflow needs the extra: pip install 'winnow-lm[gcp]'") from None
        threads = parsed.number_of_worker_harness_threads or 1
        defaults["number_of_worker_harness_threads"] = threads
        if stall_minutes and not parsed.element_processing_timeout_minutes:
            defaults["element_processing_timeout_minutes"] = math.ceil(stall_minutes)
    if parsed.runner not in (None, "DirectRunner", _LOCAL):
        return PipelineOptions(list(flags), **defaults)
    workers, mode = parsed.direct_num_workers, parsed.direct_running_mode
    if "--direct_num_workers" not in given:
        workers = len(os.sched_getaffinity(0))
    if "--direct_running_mode" not in given:
        mode = "in_memory" if workers == 1 else "multi_threading"
    return _LocalOptions(
        list(flags),
        runner=_LOCAL,
        direct_num_workers=workers,
        direct_running_mode=mode,
        pipeline_type_check=False,  # the graph is ours; tests build it
        disable_beartype=True,
    )


def _parsed(flags: Sequence[str]) -> argparse.Namespace:
    """The values of Beam's flags; ValueError for an unknown one."""
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for kind in [PipelineOptions, *PipelineOptions.__subclasses__()]:
        kind._add_argparse_args(known)
    parsed, unknown = known.parse_known_args(list(flags))
    if unknown and parsed.job_endpoint:  # engines have options that Beam's Python lacks
        for name in job_server.options(parsed.job_endpoint):
            if f"--{name}" not in known._option_string_actions:
                known.add_argument(f"--{name}", nargs="?")
        parsed, unknown = known.parse_known_args(list(flags))
    if unknown:
        # Their values may be secrets.
        names = ours.names_of(unknown) or unknown
        options = [name for action in known._actions for name in action.option_strings]
        others = {*ours.names(), *options} - {names[0]}  # that may be one of another command
        near = nearest(names[0], sorted(others), ours.LIKENESS)
        advice = f"did you mean {near}?" if near else "see --help"
        raise ValueError(f"neither Winnow nor Beam has {' '.join(names)}: {advice}")
    return parsed


def choose_processes(
    options: PipelineOptions, flags: Sequence[str], inputs: Iterable[InputRange]
) -> None:
    """Use processes as local workers if there is much HTML, unless ``flags`` choose a mode.

    HTML extraction holds the GIL, so threads hardly profit from more cores.
    """
    direct = options.view_as(DirectOptions)
    chosen = "--direct_running_mode" in ours.names_of(flags)
    html = sum(piece.size for piece in inputs if _HOLDS_HTML.search(piece.path))
    if direct.direct_running_mode == "multi_threading" and not chosen and html >= _MUCH_HTML:
        direct.direct_running_mode = "multi_processing"


def _prism() -> str:
    """The path of Prism, which Beam would look for on GitHub instead of on the ``PATH``."""
    path = shutil.which("prism")
    if path is None:
        raise ValueError(
            "--runner PrismRunner needs Beam's prism on the PATH, or --prism_location: `go install"
            f" github.com/apache/beam/sdks/v2/go/cmd/prism@v{beam.__version__}` makes it"
        )
    return path


def name(options: PipelineOptions) -> str:
    """The name to display for the engine that these options choose."""
    runner = str(options.view_as(StandardOptions).runner).rpartition(".")[2]
    if runner != _LOCAL:
        return runner
    direct = options.view_as(DirectOptions)
    kind = "process" if direct.direct_running_mode == "multi_processing" else "thread"
    many = "" if direct.direct_num_workers == 1 else ("es" if kind == "process" else "s")
    return f"DirectRunner (Beam's {_LOCAL}), {direct.direct_num_workers} {kind}{many}"


def run(
    options: PipelineOptions,
    build: Callable[[beam.Pipeline], None],
    watch: progress.Watch,
    own: Sequence[str] = (),
    note: str | None = None,
) -> bool:
    """Run the pipeline that ``build`` fills; false if it is only saved as a template.

    That is the case with ``--template_location``, where Dataflow then finds the job. ``watch``
    watches local workers; clusters have their own limits. ``own`` are dotted paths of the user's
    code that workers need. The file ``note`` records the engine's job. An interrupt cancels it.

    Raises:
        ValueError, OSError: a worker raised it.
        OSError: the engine gave up.
        RuntimeError: a worker failed otherwise; the message is the worker's.
        ConnectionError: the engine's job server is gone.
        TimeoutError: the workers stall, or did not start in time.
    """
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    try:
        if options.view_as(StandardOptions).runner == _LOCAL:
            _run_here(options, build, watch)
            return True
        with staging.packages(options, own):  # before the pipeline takes a copy of the options
            pipeline = beam.Pipeline(options=options)
            build(pipeline)
            with job_server.stopping(pipeline.runner):
                result = pipeline.run()
                if options.view_as(GoogleCloudOptions).template_location:
                    return False
                with job_server.followed(result, options, note):
                    result.wait_until_finish()
            return True
    except ValueError as error:  # of a worker in this process
        raise ValueError(_WHERE.sub("", str(error))) from error
    except grpc.FutureTimeoutError as error:
        raise TimeoutError(
            "Beam's workers did not start within a minute of the clock, which may have jumped:"
            " start the run again with --resume"
        ) from error
    except grpc.RpcError as error:  # first: some are RuntimeErrors too
        code = f": {error.code().name}" if isinstance(error, grpc.Call) else ""
        raise ConnectionError(
            f"the engine's job server no longer answers{code}. Start the run again with --resume"
        ) from error
    except (RuntimeError, DataflowRuntimeException) as error:
        raise _raised(str(error)) from error


def _raised(said: str) -> Exception:
    """Beam's report of a worker's error (``RuntimeError: OSError: …``) or an engine's, as ours."""
    if said == _WORKER_DIED:
        return RuntimeError(
            "a worker process died (out of memory?): start the run again with --resume"
        )
    found = _WORKER_ERROR.findall(said)
    if not found:
        failed = job_server.failure(said)
        again = f"the engine gave up: {failed}. Start the run again with --resume"
        return OSError(again) if failed else RuntimeError(said)
    kind, message = found[-1]
    while nested := _NESTED.fullmatch(message):
        kind, message = nested.groups()
    raised = getattr(builtins, kind, RuntimeError)
    for mendable in (ValueError, OSError):
        if issubclass(raised, mendable):
            return mendable(message)
    return RuntimeError(f"{kind}: {message}")


def _run_here(
    options: PipelineOptions, build: Callable[[beam.Pipeline], None], watch: progress.Watch
) -> None:
    """Run Beam's embedded runner in a thread, while this one watches for stalls.

    A hanging thread cannot be stopped; it and its workers end with the process.
    """
    outcome: concurrent.futures.Future[None] = concurrent.futures.Future()

    def work(folder: str) -> None:
        try:
            own = copy.deepcopy(options)
            pipeline = beam.Pipeline(_embedded_runner(own, folder), own)
            build(pipeline)
            pipeline.run().wait_until_finish()
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    with watch.opened() as folder:
        threading.Thread(target=work, args=(folder,), daemon=True, name="beam").start()
        while not concurrent.futures.wait([outcome], timeout=heartbeat.INTERVAL).done:
            watch.look()
    outcome.result()


def _embedded_runner(options: PipelineOptions, folder: str) -> FnApiRunner:
    """Beam's embedded runner, with the requested kind of workers.

    Threads flush every second, even in the middle of an element, which the receiver then decodes as
    garbage (Beam 2.77, TimeBasedBufferingClosableOutputStream), so they flush only at the end of a
    bundle. Processes write heartbeats into ``folder``.
    """
    direct = options.view_as(DirectOptions)
    environment = None
    if direct.direct_running_mode == "multi_threading":
        environment = EmbeddedPythonGrpcEnvironment(data_buffer_time_limit_ms=10**9)
    elif direct.direct_running_mode == "multi_processing":
        environment = SubprocessSDKEnvironment.from_command_string(worker.command(folder))
    direct.direct_running_mode = "in_memory"  # the other modes replace the environment
    return FnApiRunner(environment)


def _except_hook(args: threading.ExceptHookArgs) -> None:
    """Print errors of threads, except of a lost engine, which :func:`run` reports."""
    if not isinstance(args.exc_value, grpc.RpcError):
        threading.__excepthook__(args)


def exit_clearly(main: Callable[[Sequence[str]], None]) -> None:
    """Run a command line, with its log, and exit as :mod:`winnow.commands.exits` defines."""
    run_log.begin()
    logging.basicConfig(level=logging.WARNING, force=True, format="%(levelname)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.WARNING)  # Beam sets its loggers to INFO
    signal.signal(signal.SIGTSTP, progress.suspend)
    threading.excepthook = _except_hook
    code = 0
    try:
        with exits.usage():
            check_utf8(sys.argv[1:])
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        code = exits.code(error)
        print(exits.line(error), file=sys.stderr)
    except RuntimeError as error:
        code = exits.FAILED
        traceback.print_exception(error.__cause__ or error)
        print(exits.line(error), file=sys.stderr)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
        print(exits.interruption(ours.AGAIN), file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    run_log.close()
    # Beam leaves threads running in C++ code. Unwinding them at exit sometimes aborts the process.
    os._exit(code)
