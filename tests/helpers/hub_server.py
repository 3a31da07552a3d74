"""A stand-in for the Hugging Face hub's HTTP interface, as far as its client uses it on data sets.

Written after the client's own requests and the Git LFS batch API. It has one user, ``me``, whose
token is ``hf_mine``; large files are those that the hub's default attributes name.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections import Counter

TOKEN = "hf_mine"
_LARGE = (".arrow", ".parquet")


def git_hash(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    """``repos`` has the files of each data set, ``commits`` what each commit named, and ``uploads``
    how often each large file was received.
    """

    def __init__(self):
        self.repos = {}
        self.private = {}
        self.commits = []
        self.uploads = Counter()
        self.stored = {}
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path = urllib.parse.unquote(self.path.partition("?")[0])
                for method, pattern, answer in ROUTES:
                    found = re.fullmatch(pattern, path)
                    if self.command in method.split("|") and found:
                        answer(hub, self, body, *found.groups())
                        return
                self.error(501, f"the stand-in has no {self.command} {self.path}")

            do_GET = do_PUT = do_POST = do_HEAD = do

            def send(self, content, status=200, **headers):
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def error(self, status, message, **headers):
                self.send({"error": message}, status, X_Error_Message=message, **headers)

            def repo(self, name):
                """The files of a data set that the caller may write; None once refused."""
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    self.error(401, "Invalid credentials in Authorization header")
                elif name not in hub.repos:
                    self.error(404, "Repository not found", X_Error_Code="RepoNotFound")
                else:
                    return hub.repos[name]

            def log_message(self, *arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()


def _url(name):
    return f"http://127.0.0.1/datasets/{name}"


def create(hub, http, body):
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}"
    if http.headers.get("Authorization") != f"Bearer {TOKEN}":
        http.error(401, "Invalid credentials in Authorization header")
    elif name in hub.repos:
        told = {"error": "You already created this dataset repo", "url": _url(name)}
        http.send(told, 409)
    elif asked["organization"] != "me":
        http.error(403, "You don't have the rights to create a dataset under this namespace")
    else:
        hub.repos[name] = {".gitattributes": b"*.arrow filter=lfs\n"}
        hub.private[name] = asked.get("private") or asked.get("visibility") == "private"
        http.send({"url": _url(name), "name": name})


def about(hub, http, body, name):
    if (files := http.repo(name)) is not None:
        siblings = [{"rfilename": path} for path in files]
        http.send({"id": name, "sha": "0" * 40, "siblings": siblings, "private": False})


def described(path, content):
    entry = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
    if path.endswith(_LARGE):
        oid = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
        entry["oid"] = git_hash(oid.encode())
    return entry


def tree(hub, http, body, name, folder):
    files = http.repo(name)
    if files is None:
        return
    inside = f"{folder}/" if folder else ""
    mine = {path: content for path, content in files.items() if path.startswith(inside)}
    if folder and not mine:
        http.error(404, f"{folder} does not exist", X_Error_Code="EntryNotFound")
        return
    if "recursive=true" in http.path.lower():
        http.send([described(path, content) for path, content in mine.items()])
        return
    near = [described(p, c) for p, c in mine.items() if "/" not in p.removeprefix(inside)]
    folders = {p.removeprefix(inside).split("/")[0] for p in mine if "/" in p.removeprefix(inside)}
    near += [{"type": "directory", "path": inside + f, "oid": "1" * 40} for f in sorted(folders)]
    http.send(near)


def paths_info(hub, http, body, name):
    if (files := http.repo(name)) is not None:
        asked = json.loads(body)["paths"]
        http.send([described(path, files[path]) for path in asked if path in files])


def validate(hub, http, body):
    http.send({"errors": [], "warnings": []})


def preupload(hub, http, body, name):
    files = http.repo(name)
    if files is None:
        return
    found = []
    for file in json.loads(body)["files"]:
        path = file["path"]
        mode = "lfs" if path.endswith(_LARGE) else "regular"
        entry = {"path": path, "uploadMode": mode, "shouldIgnore": False}
        if path in files:
            entry["oid"] = described(path, files[path]).get("lfs", {"oid": None})["oid"]
            entry["oid"] = entry["oid"] or git_hash(files[path])
        found.append(entry)
    http.send({"files": found})


def batch(hub, http, body, name):
    if http.repo(name) is None:
        return
    objects = []
    for wanted in json.loads(body)["objects"]:
        oid = wanted["oid"]
        if oid not in hub.stored:
            url = f"http://{http.headers['Host']}/store/{oid}"
            wanted["actions"] = {"upload": {"href": url}}
        objects.append(wanted)
    http.send({"transfer": "basic", "objects": objects})


def store(hub, http, body, oid):
    if hashlib.sha256(body).hexdigest() != oid:
        http.error(400, "BadDigest")
        return
    hub.uploads[oid] += 1
    hub.stored[oid] = body
    http.send(b"")


def commit(hub, http, body, name):
    files = http.repo(name)
    if files is None:
        return
    changed, summary = dict(files), ""
    for line in body.splitlines():
        item = json.loads(line)
        value = item["value"]
        match item["key"]:
            case "header":
                summary = value["summary"]
            case "file":
                changed[value["path"]] = base64.b64decode(value["content"])
            case "lfsFile":
                if len(hub.stored.get(value["oid"], b"")) != value["size"]:
                    http.error(400, f"{value['path']} was not uploaded")
                    return
                changed[value["path"]] = hub.stored[value["oid"]]
            case "deletedFile":
                if changed.pop(value["path"], None) is None:
                    http.error(404, "A file with this name doesn't exist")
                    return
    hub.repos[name] = changed
    hub.commits.append((summary, sorted(changed)))
    oid = f"{len(hub.commits):040x}"
    told = {"success": True, "commitOid": oid, "commitUrl": f"{_url(name)}/commit/{oid}"}
    http.send(told)


def resolve(hub, http, body, name, path):
    files = http.repo(name)
    if files is None:
        return
    if path not in files:
        http.error(404, "Entry not found", X_Error_Code="EntryNotFound")
        return
    content, headers, status = files[path], {"Accept_Ranges": "bytes"}, 200
    if part := re.fullmatch(r"bytes=(\d+)-(\d*)", http.headers.get("Range", "")):
        start, end = int(part[1]), int(part[2] or len(content) - 1)
        headers["Content_Range"] = f"bytes {start}-{end}/{len(content)}"
        content, status = content[start : end + 1], 206
    http.send(content, status, ETag=f'"{git_hash(files[path])}"', X_Repo_Commit="0" * 40, **headers)


_REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    ("POST", "/api/repos/create", create),
    ("GET", f"/api/datasets/{_REPO}(?:/revision/main)?", about),
    ("GET", f"/api/datasets/{_REPO}/tree/main(?:/(.+))?", tree),
    ("POST", f"/api/datasets/{_REPO}/paths-info/main", paths_info),
    ("POST", "/api/validate-yaml", validate),
    ("POST", f"/api/datasets/{_REPO}/preupload/main", preupload),
    ("POST", rf"/datasets/{_REPO}\.git/info/lfs/objects/batch", batch),
    ("PUT", r"/store/(\w+)", store),
    ("POST", f"/api/datasets/{_REPO}/commit/main", commit),
    ("GET|HEAD", f"/datasets/{_REPO}/resolve/main/(.+)", resolve),
]
