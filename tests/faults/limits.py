"""Functions that run in a process of their own, which may take only so much memory and time."""

import contextlib
import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["faults.ready"])  # once, not by every process


def limit_memory(spare_bytes: int) -> None:
    """Let this process take no more address space than so much beyond what it takes now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + spare_bytes, now + spare_bytes))


def limit_time(seconds: int) -> None:
    """Let this process end, even within compiled code, once it has computed so long from now on."""
    now = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (now + seconds + 1, resource.RLIM_INFINITY))


def call(function: Callable[..., Any], *arguments: Any, spare_bytes: int, seconds: int) -> Any:
    """What a function of a module returns in a process of its own.

    Raises:
        AssertionError: it raises there, is killed, or does not end in time.
    """
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(
        target=_call, args=(sender, function, arguments, spare_bytes, seconds)
    )
    with _search_path():
        process.start()
    sender.close()
    try:
        good, value = receiver.recv()
    except EOFError:
        good, value = False, None
    process.join()
    assert good, value or f"{function.__name__}: the process ended with {process.exitcode}"
    return value


@contextlib.contextmanager
def _search_path() -> Iterator[None]:
    """Give this process's search path to the one that preloads, which knows nothing of it."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in sys.path if path))
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _call(
    sender: Connection,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    spare_bytes: int,
    seconds: int,
) -> None:
    limit_memory(spare_bytes)
    limit_time(seconds)
    try:
        sender.send((True, function(*arguments)))
    except BaseException:
        sender.send((False, traceback.format_exc()))
