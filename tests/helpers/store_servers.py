"""S3 and Google Cloud Storage on this machine, each a process, and a proxy that makes them faulty.

python tests/helpers/store_servers.py s3 0     serves an empty store and prints its port
"""

import contextlib
import http.client
import http.server
import itertools
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator


def flags(scheme: str, port: int, setenv: Callable[[str, str], None]) -> list[str]:
    """Beam's options for a store on this machine; what Beam has none for is set as a variable."""
    url = f"http://localhost:{port}"
    if scheme == "gs":
        setenv("STORAGE_EMULATOR_HOST", url)
        setenv("GOOGLE_CLOUD_PROJECT", "project")
        return []
    return [
        f"--s3_endpoint_url={url}",
        "--s3_region_name=us-east-1",
        "--s3_access_key_id=AKIDFORTESTS",
        "--s3_secret_access_key=notasecret",
    ]


@contextlib.contextmanager
def serving(scheme: str, many: int = 0) -> Iterator[int]:
    """A store in a process of its own, with a bucket named bucket; gives its port.

    The bucket named many holds that many objects in one folder, and some in another.
    """
    command = [sys.executable, __file__, scheme, str(many)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield int(child.stdout.readline())
    finally:
        child.kill()
        child.wait()


def names(many: int) -> Iterator[str]:
    """What is in the bucket named many."""
    for folder, n in (("in", many), ("out", many // 9)):
        yield from (f"{folder}/part-{i:05d}.jsonl" for i in range(n))


def serve_s3(many: int) -> None:
    from moto.s3.models import s3_backends
    from moto.server import ThreadedMotoServer

    backend = s3_backends["123456789012"]["aws"]
    for name in ("bucket", "many"):
        backend.create_bucket(name, "us-east-1")
    for name in names(many):
        backend.put_object("many", name, b"")
    server = ThreadedMotoServer("localhost", 0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    signal.pause()


def serve_gcs(many: int) -> None:
    """The emulator, with what it lacks: conditions on generations, pages of listings, and an answer
    to those who send the end of an upload again.
    """
    from gcp_storage_emulator import server
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import buckets, objects

    def met(request, storage, name: str) -> bool:
        if "ifGenerationMatch" not in request.query:
            return True
        try:
            now = storage.get_file_obj(request.params["bucket_name"], name)["generation"]
        except NotFound:
            now = "0"
        return request.query["ifGenerationMatch"][0] == now

    def under_condition(handler):
        def handle(request, response, storage, *rest):
            name = request.params.get("object_id")
            if name is None and request.query.get("uploadType") == ["multipart"]:
                name = request.data["meta"]["name"]
            if name is None or met(request, storage, name):
                return handler(request, response, storage, *rest)
            response.status = http.HTTPStatus.PRECONDITION_FAILED
            response.json({"error": {"code": 412, "message": "conditionNotMet"}})

        return handle

    def in_pages(request, response, storage, *rest):
        objects.ls(request, response, storage, *rest)
        if response.status != http.HTTPStatus.OK:
            return
        found = json.loads(response._content)
        first = int(request.query.get("pageToken", ["0"])[0])
        end = first + min(int(request.query.get("maxResults", ["1000"])[0]), 1000)
        items = sorted(found["items"], key=lambda item: item["name"])
        if end < len(items):
            found["nextPageToken"] = str(end)
        response.json(found | {"items": items[first:end]})

    finished: dict[str, str] = {}

    def again(request, response, storage, *rest):
        upload = request.query["upload_id"][0]
        _ = request.data  # is read from the connection here
        if upload in finished:
            response.json(json.loads(finished[upload]))
            return
        objects.upload_partial(request, response, storage, *rest)
        if response.status == http.HTTPStatus.OK:
            finished[upload] = response._content

    changed = {
        handler: under_condition(handler)
        for handler in (objects.insert, objects.download, objects.get)
    } | {objects.ls: in_pages, objects.upload_partial: again}
    server.HANDLERS = tuple(
        (regex, {method: changed.get(handler, handler) for method, handler in handlers.items()})
        for regex, handlers in server.HANDLERS
    )
    emulator = server.create_server("localhost", 0, in_memory=True)
    emulator._storage._write_config_to_file = lambda: None  # all of it, at every change
    for name in ("bucket", "many"):
        buckets.create_bucket(name, emulator._storage)
    for name in names(many):
        about = objects._make_object_resource("", "many", name, "text/plain", "0")
        emulator._storage.create_file("many", name, b"", objects._checksums(b"", about))
    emulator.start()
    print(emulator._api._httpd.server_port, flush=True)
    signal.pause()


FAULTS = ("500", "503", "429", "slow", "refused", "unanswered", "cut")


class Faulty:
    """A proxy before a store that does ``fault(n, method, path)`` to the n-th request.

    A fault is a status to answer with, ``slow`` (the answer takes a while), ``refused`` (the
    connection ends before the store hears of it), ``unanswered`` (after it has done as asked),
    ``cut`` (in the middle of the answer's body), or None.
    """

    def __init__(self, upstream: int, fault: Callable[[int, str, str], str | None]) -> None:
        self.done: Counter[str | None] = Counter()
        self.sent = 0
        self.largest = 0
        number = itertools.count()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def relay(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                kind = fault(next(number), self.command, self.path)
                proxy.done[kind] += 1
                if kind == "refused":
                    self.close_connection = True
                    return
                if kind is not None and kind.isdigit():
                    self.answer(int(kind), {}, b"")
                    return
                store = http.client.HTTPConnection("localhost", upstream)
                headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
                store.request(self.command, self.path, body, headers)
                reply = store.getresponse()
                content = reply.read()
                store.close()
                if kind == "slow":
                    time.sleep(0.5)
                if kind == "unanswered":
                    self.close_connection = True
                    return
                self.answer(reply.status, dict(reply.getheaders()), content, kind == "cut")

            def answer(self, status, headers, content, cut=False) -> None:
                length = str(len(content))
                if self.command == "HEAD":
                    length = headers.get("Content-Length", "0")
                skipped = ("content-length", "connection", "transfer-encoding")
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in skipped:
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                proxy.sent += len(content)
                proxy.largest = max(proxy.largest, len(content))
                self.wfile.write(content[: len(content) // 2] if cut else content)
                if cut:
                    self.close_connection = True

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = relay

            def log_message(self, *arguments) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> "Faulty":
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def at_random(seed: int, rate: float, faults=FAULTS) -> Callable[[int, str, str], str | None]:
    """One of the faults for this share of the requests."""
    rng = random.Random(seed)
    return lambda *request: rng.choice(faults) if rng.random() < rate else None


if __name__ == "__main__":
    {"s3": serve_s3, "gs": serve_gcs}[sys.argv[1]](int(sys.argv[2]))
