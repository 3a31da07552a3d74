"""Pushes a finished run to a dataset repository of the Hugging Face hub.

Files that the repository lacks, by hash, are sent in commits of at most :data:`COMMIT_FILES`, the
manifest in the last one. So a repository with a manifest has the complete run, and an interrupted
push resumes. The last commit also deletes an earlier run's stale files; other files are never
touched. A commit may succeed although its response is lost, so each retry compares again.
"""

import contextlib
import fnmatch
import functools
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.output import manifest, schema
from winnow.filesystem import storage

COMMIT_FILES = 100
COMMIT_BYTES = 5 << 30
"""Limits of a commit: the hub takes a minute for one, and recommends 50 to 100 files."""

FOLDER_FILES = 10_000
"""The hub's limit per folder (huggingface.co/docs/hub/storage-limits)."""

WAITS = (1.0, 5.0, 20.0)
"""Seconds before each retry after consecutive transient errors."""

_REPOSITORY = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+?)/?")
_PAGES = ("report.html", "README.md", manifest.NAME)
_DATA = re.compile(
    r"shards/data-.+-\d{5,}-of-\d{5,}(\.\d+)?\.(arrow|parquet)"
    rf"|statistics/({'|'.join(map(re.escape, schema.TABLES))})\.parquet"
)
_NEUTRAL = (".*", "README.md", "LICENSE*")
_TRANSIENT = (408, 409, 412, 425, 429)

Say = Callable[[str], object]


@dataclass(frozen=True)
class File:
    """A file of the run: its name within the folder, its path and its size in bytes."""

    name: str
    path: str
    size: int


@dataclass
class Sent:
    """The result of a push; ``unchanged`` counts the files that the repository already had."""

    files: int = 0
    size: int = 0
    commits: int = 0
    unchanged: int = 0


def repository(url: str) -> str:
    """``USER/NAME`` of ``hf://datasets/USER/NAME``; ValueError for any other form."""
    found = _REPOSITORY.fullmatch(url)
    if not found:
        raise ValueError(f"{url} names no data set of the hub: write hf://datasets/USER/NAME")
    return found[1]


def files_of(folder: str) -> list[File]:
    """The files of a finished run to push: shards, statistics and pages, the manifest last.

    Raises:
        ValueError: the run is unfinished, lacks a file, or has more shards than the hub takes.
    """
    tasks = manifest.read_manifest(folder)["tasks"]
    names = [f"shards/{shard['name']}" for task in tasks for shard in task["shards"]]
    if len(names) > FOLDER_FILES:
        raise ValueError(
            f"{folder} has {len(names):,} shards, and the hub takes {FOLDER_FILES:,} files in a"
            " folder: make fewer, with larger --split-bytes and --shard-bytes"
        )
    tables = [f"statistics/{name}.parquet" for name in schema.TABLES]
    names += [name for name in tables if storage.exists(storage.join(folder, name))]
    found = []
    for name in (*names, *_PAGES):
        path = storage.join(folder, name)
        if not storage.exists(path):
            raise ValueError(f"{folder} is incomplete: {name} is missing")
        found.append(File(name, path, storage.size(path)))
    return found


def push(folder: str, url: str, *, private: bool, say: Say) -> Sent:
    """Push the run in ``folder`` to the repository, which is created if needed.

    Raises:
        ValueError: there is no finished run or no token, or the repository holds something else.
        OSError: the hub refuses, or cannot be reached; another push resumes.
    """
    repo, files = repository(url), files_of(folder)
    api = _api(url)
    sent = Sent()
    waits = iter(WAITS)
    while True:
        try:
            api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
            for commit in _commits(api, repo, url, files):
                say(f"sending {commit.title} to {url}")
                commit.send(api, repo)
                sent.commits += 1
                sent.files += len(commit.files)
                sent.size += sum(file.size for file in commit.files)
                waits = iter(WAITS)
            sent.unchanged = len(files) - sent.files
            return sent
        except Exception as error:
            if not _of_the_hub(error):
                raise
            wait = next(waits, None) if _is_transient(error) else None
            if wait is None:
                raise OSError(_explained(error, url, api.endpoint)) from error
            say(f"{url}: {_line(error)}; trying again")
            time.sleep(wait)


@dataclass(frozen=True)
class Commit:
    """Files to send together, and names to delete."""

    title: str
    files: Sequence[File]
    deleted: Sequence[str]

    def send(self, api: Any, repo: str) -> None:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        with contextlib.ExitStack() as copies:
            operations = [CommitOperationDelete(name) for name in self.deleted]
            for file in self.files:
                path = file.path
                if storage.scheme(path) is not None:
                    path = copies.enter_context(storage.local_copy(path))
                operations.append(CommitOperationAdd(file.name, path))
            api.create_commit(
                repo, operations, repo_type="dataset", commit_message=f"winnow push: {self.title}"
            )


def _commits(api: Any, repo: str, url: str, files: Sequence[File]) -> Iterator[Commit]:
    """The commits that complete the repository; ValueError if it holds something else."""
    remote = {
        entry.path: entry
        for entry in api.list_repo_tree(repo, repo_type="dataset", recursive=True)
        if hasattr(entry, "blob_id")  # not a folder
    }
    foreign = _strangers(remote)
    if foreign:
        raise ValueError(
            f"{url} holds other files ({foreign[0]}) and no run: give another name, or delete"
            " them there"
        )
    local = {file.name for file in files}
    stale = [name for name in sorted(remote) if _DATA.fullmatch(name) and name not in local]
    batches = _batches(file for file in files if _differs(file, remote.get(file.name)))
    for number, batch in enumerate(batches or [[]] * bool(stale), 1):
        title = f"part {number} of {len(batches)}" if len(batches) > 1 else "the run"
        last = number == len(batches)
        # The first change makes the manifest of an earlier run wrong.
        wrong = [manifest.NAME] if number == 1 and not last and manifest.NAME in remote else []
        yield Commit(title, batch, stale if last else wrong)


def _strangers(remote: Iterable[str]) -> list[str]:
    """Files that neither a push nor the hub added; none if there is a run, complete or not."""
    names = sorted(remote)
    if manifest.NAME in names or any(_DATA.fullmatch(name) for name in names):
        return []
    return [name for name in names if not any(fnmatch.fnmatch(name, n) for n in _NEUTRAL)]


def _batches(files: Iterable[File]) -> list[list[File]]:
    batches: list[list[File]] = []
    for file in files:
        last = batches[-1] if batches else []
        room = COMMIT_BYTES - sum(other.size for other in last)
        if 0 < len(last) < COMMIT_FILES and file.size <= room:
            last.append(file)
        else:
            batches.append([file])
    return batches


def _differs(file: File, remote: Any) -> bool:
    """Whether the repository's file, if any, differs in size or hash."""
    if remote is None or remote.size != file.size:
        return True
    if remote.lfs:
        return _sha256(file.path) != remote.lfs.sha256
    content = storage.read_bytes(file.path)  # small: large files are in LFS
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() != remote.blob_id


@functools.cache
def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with storage.open_input(path) as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _api(url: str) -> Any:
    """The hub's client, with the user's token; ValueError if either is missing."""
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(f"{url} needs the extra: pip install 'winnow-lm[hf]'") from None
    if huggingface_hub.get_token() is None:
        raise ValueError(
            f"no token for {url}: log in with `hf auth login`, or set HF_TOKEN to a token with"
            " write access"
        )
    huggingface_hub.utils.disable_progress_bars()
    return huggingface_hub.HfApi(library_name="winnow")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and its chain of causes: the client wraps errors of uploads."""
    yield error
    if error.__cause__ is not None:
        yield from _causes(error.__cause__)


def _of_the_hub(error: Exception) -> bool:
    """Whether the hub or the connection to it is to blame."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):  # the user's own setting
        return False
    # The client raises RuntimeError for failed uploads, and does not catch errors in JSON.
    return isinstance(
        error, errors.HTTPError | ConnectionError | RuntimeError | json.JSONDecodeError
    )


def _answer(error: Exception) -> Any:
    """The HTTP response behind an error, or None."""
    answers = (getattr(cause, "response", None) for cause in _causes(error))
    return next((answer for answer in answers if answer is not None), None)


def _is_transient(error: Exception) -> bool:
    """Whether the hub is busy or the connection broke, so that a retry may succeed."""
    answer = _answer(error)
    return answer is None or answer.status_code in _TRANSIENT or answer.status_code >= 500


def _explained(error: Exception, url: str, endpoint: str) -> str:
    """The hub's error in the user's terms."""
    answer = _answer(error)
    user = repository(url).partition("/")[0]
    again = "run the same command again: what was sent is not sent again"
    match answer.status_code if answer is not None else None:
        case None:
            return f"{endpoint} can't be reached ({_line(error)}): check the connection and {again}"
        case 401:
            return (
                f"the hub does not know the token for {url}: log in with `hf auth login`, or set"
                " HF_TOKEN to a valid one"
            )
        case 403 | 404:
            return (
                f"the hub refuses {url} ({_line(error)}): check the name, and that the token may"
                f" write data sets of {user}"
            )
        case status:
            advice = f": {again}" if _is_transient(error) else ""
            return f"{url}: the hub answers {status} ({_line(error)}){advice}"


def _line(error: Exception) -> str:
    *_, first = _causes(error)
    messages = (getattr(cause, "server_message", None) for cause in _causes(error))
    message = next(filter(None, messages), str(first))
    lines = [line.strip().rstrip(".") for line in message.splitlines() if line.strip()]
    return lines[0] if lines else type(first).__name__
