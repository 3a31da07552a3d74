"""Commands that start from a process which has imported the libraries: for tests of many commands.

A command of ours spends most of its time on the import of torch or Beam. ``running`` starts one
process that imports them, and none of our own modules, or finds the one that another process of
the same test run has started. It gives a program to call like Python: a script or one of
``MODULES`` is run in a fork of that process, as is each that such a command starts by
``sys.executable``; anything else is left to Python. Signals are passed on, both ways, and a command
whose caller is gone is killed.

This file is run by the client too, for each command, so it imports little at its top.
"""

import os
import signal
import socket
import sys
from contextlib import contextmanager, suppress

LIBRARIES = (
    "apache_beam",
    "hydra",
    "jinja2",
    "joblib",
    "matplotlib.figure",
    "pandas",
    "pyarrow.compute",
    "pyarrow.parquet",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.linear_model",
    "tokenizers",
    "torch._dynamo",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
)

MODULES = ("winnow", "torch.distributed.run")


@contextmanager
def running(place):
    """The path of the program. Processes that name the same place share one server.

    ``place`` becomes a link to the folder of the server, which ends with the last of them.
    """
    import fcntl

    with open(f"{place}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            held = os.open(f"{place}/held", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody has started one, or the last one has ended
            held = _start(place)
    try:
        yield os.path.realpath(f"{place}/python")
    finally:
        os.close(held)


def _start(place):
    """A server, and a link to its folder; the open file that keeps it running."""
    import shlex
    import subprocess
    import tempfile

    here = os.path.realpath(__file__)
    folder = tempfile.mkdtemp()  # of pytest's the names are too long for a socket
    with suppress(FileNotFoundError):
        os.remove(place)
    os.symlink(folder, place)
    program, address, pipe = (f"{folder}/{name}" for name in ("python", "socket", "held"))
    client = shlex.join([sys.executable, "-IS", here, "call", address])
    with open(program, "w") as file:
        file.write(f'#!/bin/sh\nexec {client} "$@"\n')
    os.chmod(program, 0o755)
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    held = os.open(pipe, os.O_WRONLY)
    path = os.path.dirname(os.path.dirname(os.path.dirname(here)))
    server = subprocess.Popen(
        [sys.executable, here, "serve", address, program, f"{place}.lock"],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdin=reading,
        stdout=subprocess.PIPE,
    )
    os.close(reading)
    assert server.stdout.readline() == b"ready\n"
    return held


def call(address, *arguments):
    """Has a command run by the server at ``address``, with our files; returns its exit code."""
    if arguments[:1] == ("-u",):  # from torchrun
        arguments = arguments[1:]
    is_script = "".join(arguments[:1]).endswith(".py")
    if not is_script and not (arguments[:1] == ("-m",) and arguments[1] in MODULES):
        os.execv(sys.executable, [sys.executable, *arguments])
    import json
    import struct

    with socket.socket(socket.AF_UNIX) as link:
        link.connect(address)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: link.send(bytes([number])))
        request = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(link, [len(request).to_bytes(8, "big")], [0, 1, 2])
        link.sendall(request)
        (code,) = struct.unpack(">h", link.recv(2))
    if code < 0:  # a signal ended it
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def serve(address, program, lock):
    """Fork for each command, until nobody holds the pipe that is standard input."""
    import fcntl
    import gc
    import importlib
    import select
    import shutil

    for name in LIBRARIES:
        importlib.import_module(name)
    import numba

    numba.njit(lambda: 0)()  # it sets itself up at the first call
    gc.freeze()  # or each fork would copy what its garbage collector looks at
    sys.path.remove(os.path.dirname(__file__))
    sys.executable = program
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        while True:
            if sys.stdin in select.select([listening, sys.stdin], [], [])[0]:
                with open(lock) as file:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    if sys.stdin in select.select([sys.stdin], [], [], 0)[0]:  # still nobody
                        shutil.rmtree(os.path.dirname(address))
                        return
                continue
            link, _ = listening.accept()
            with link:
                if not os.fork():
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _attend(link)
                    os._exit(0)


def _attend(link):
    """Run a command and pass signals on to it; tell its exit code."""
    import multiprocessing
    import select
    import struct

    size, files, *_ = socket.recv_fds(link, 8, 3)
    request = link.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
    process = multiprocessing.get_context("fork").Process(target=_become, args=(request, files))
    process.start()
    for file in files:
        os.close(file)
    while process.sentinel not in select.select([link, process.sentinel], [], [])[0]:
        number = link.recv(1)
        os.kill(process.pid, number[0] if number else signal.SIGKILL)
        if not number:
            return
    process.join()
    with suppress(BrokenPipeError):
        link.send(struct.pack(">h", process.exitcode))


def _become(request, files):
    """Run a command in this process, as Python would."""
    import atexit
    import json
    import multiprocessing.process
    import runpy
    import threading

    import torch

    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    arguments, folder, environment = json.loads(request)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", 1)))
    multiprocessing.process.ORIGINAL_DIR = folder
    sys.orig_argv = [sys.executable, *arguments]
    try:
        if arguments[0] == "-m":
            sys.path.insert(0, folder)
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, os.path.dirname(os.path.realpath(arguments[0])))
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    finally:  # as at the end of Python; a fork of multiprocessing leaves some of it out
        threading._shutdown()
        atexit._run_exitfuncs()


if __name__ == "__main__":
    if sys.argv[1] == "call":
        sys.exit(call(*sys.argv[2:]))
    serve(*sys.argv[2:])
