"""Mirror to a bucket the output of commands that append to, rename or map files.

The command works in a local folder while a thread uploads complete files, manifests last, so the
bucket always holds a readable folder from which another machine can resume. Deleted files are
deleted from the bucket once their replacement is uploaded.

The bucket is authoritative: a killed command's files are used only if no machine resumed since.

::

    CACHE/outputs/NAME/       the working folder; removed at the end
    CACHE/outputs/NAME.json   the known state of the bucket
    CACHE/outputs/NAME.stage/ files being uploaded, as links and copies
    OUTPUT/.mirror            identifies the local folder; removed at the end
"""

import contextlib
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import xxhash

from winnow.commands import console
from winnow.filesystem import files, local_copies, storage

MANIFEST = "manifest.json"
"""Completes a unit of a :class:`Layout`."""

POLL = 1.0
"""Seconds between checks for new files."""

PAUSE = 15.0
"""Seconds between attempts to reach a bucket, after the client's own retries."""

TURN = ".mirror"
"""An object that a machine replaces before it writes anything else."""

NEVER = re.compile(r"(?!)")
"""A pattern that matches no path."""

Stamp = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The files of an output and when they are complete, as patterns of relative paths.

    Attributes:
        ours: all files of the output; others in the bucket are left alone.
        units: folders that are complete and immutable once they have a manifest.json.
        single: files that are complete and immutable when they appear.
        last: files that are complete when they appear, uploaded after all others.
        sign: another machine can resume if one of these exists.
        settled: files that mark their folder as done; resuming does not download its units.
    """

    ours: re.Pattern[str]
    units: re.Pattern[str] = NEVER
    single: re.Pattern[str] = NEVER
    last: re.Pattern[str]
    sign: re.Pattern[str]
    settled: re.Pattern[str] = NEVER

    def unit(self, name: str) -> str | None:
        """The unit of a file, if any."""
        match = self.units.match(name)
        return match[0] if match and name[match.end() :].startswith("/") else None


@contextlib.contextmanager
def working_folder(output: str, layout: Layout) -> Iterator[str]:
    """A local folder mirrored to ``output``, a folder in a bucket, which is locked.

    When the block ends, even by an error or an interrupt, the rest is uploaded.

    Raises:
        ValueError: another run is writing there.
        OSError: the bucket can't be read or written, or another run has taken it over.
    """
    from winnow.object_stores import lease

    local = local_folder(output)
    try:
        with storage.lock(output) as still_ours:
            mirror = _Mirror(output, local, layout, still_ours)
            with console.doing(f"reading {output}"):
                mirror.begin()
            with _in_background(mirror):
                yield local
            mirror.forget()
    except lease.LostError as error:
        raise OSError(str(error)) from error
    except ValueError as error:
        if local in str(error):
            raise ValueError(str(error).replace(local, output)) from error
        raise


def local_folder(output: str) -> str:
    """The local folder that is mirrored to an output in a bucket."""
    output = output.rstrip("/")
    name = f"{os.path.basename(output)}-{xxhash.xxh3_64_hexdigest(output.encode())}"
    return os.path.join(local_copies.cache(), "outputs", name)


@contextlib.contextmanager
def _in_background(mirror: "_Mirror") -> Iterator[None]:
    """Upload while the block runs, then the rest; retry while the bucket can't be reached.

    After an error in the block, a failed upload is only reported.
    """
    done = threading.Event()

    def watch() -> None:
        wait = POLL
        while not done.wait(wait):
            try:
                mirror.upload(complete_only=True)
                wait = POLL
            except OSError as error:
                console.say(f"not uploaded yet, trying again: {error}")
                wait = PAUSE

    def end() -> None:
        done.set()
        with console.doing(f"uploading to {mirror.output}"):
            thread.join()
            mirror.upload()

    thread = threading.Thread(target=watch, daemon=True, name="mirror")
    thread.start()
    try:
        yield
    except BaseException:
        try:
            end()
        except OSError as error:
            console.say(f"not all was uploaded: {error}")
        raise
    end()


class _Mirror:
    """A local folder and its copy in a bucket; one thread at a time calls ``upload``.

    A file holds the known state of the bucket: ``turn`` is the content of :data:`TURN` while only
    this machine writes there; ``sent`` has the stamps of uploaded files (of a unit, its manifest).
    """

    def __init__(
        self, output: str, local: str, layout: Layout, still_ours: Callable[[], bool]
    ) -> None:
        self.output = output
        self._local = local
        self._layout = layout
        self._still_ours = still_ours
        self._note = f"{local}.json"
        self._stage = f"{local}.stage"
        self._turn = ""
        self._sent: dict[str, Stamp] = {}
        self._there: set[str] = set()
        self._took_over = False

    def begin(self) -> None:
        """Download the bucket to the local folder, or resume in the local folder."""
        ours = self._layout.ours
        storage.remove_unfinished(self.output, lambda name: ours.fullmatch(name) is not None)
        shutil.rmtree(self._stage, ignore_errors=True)
        names = set(storage.tree(self.output))
        others = set(_visible(names))
        self._there = set(filter(ours.fullmatch, others))
        others -= self._there
        if any(part in ("", "..") for name in self._there for part in name.split("/")):
            raise ValueError(f"{self.output} holds names that are not valid paths")
        known = any(map(self._layout.sign.fullmatch, self._there))
        if not known and others:
            other = min(others)
            raise ValueError(
                f"{self.output} holds {other}, which is not part of a run: choose another output"
            )
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError):
            note = storage.read_json(self._note)
            self._sent = {name: (int(a), int(b)) for name, (a, b) in note["sent"].items()}
            self._turn = note["turn"] or ""
        turn = storage.read_bytes(storage.join(self.output, TURN)) if TURN in names else b""
        if turn and turn.decode() == self._turn and os.path.isdir(self._local):
            self._sent = {n: s for n, s in self._sent.items() if n in self._there}
            self._took_over = True
            return
        self._turn, self._sent = "", {}
        self._write_note()
        shutil.rmtree(self._local, ignore_errors=True)
        os.makedirs(self._local)
        if known:
            self._download()
        self._turn = uuid.uuid4().hex
        self._write_note()

    def _download(self) -> None:
        settled = {os.path.dirname(n) for n in filter(self._layout.settled.fullmatch, self._there)}
        units = {
            unit
            for unit in self._complete(self._there)
            if settled.isdisjoint(unit[: at.start()] for at in re.finditer("/", unit))
        }
        wanted = [n for n in self._there if (u := self._layout.unit(n)) is None or u in units]

        def get(name: str) -> None:
            with (
                storage.open_input(storage.join(self.output, name)) as source,
                files.open_output(os.path.join(self._local, name)) as copy,
            ):
                shutil.copyfileobj(source, copy, 8 << 20)

        with ThreadPoolExecutor(local_copies.THREADS) as pool:
            list(pool.map(get, wanted))
        for name in wanted:
            if (unit := self._layout.unit(name)) is None or name == f"{unit}/{MANIFEST}":
                self._sent[name] = _stamp(os.path.join(self._local, name))

    def upload(self, complete_only: bool = False) -> None:
        """Upload new files and delete removed ones; with ``complete_only``, if any are complete."""
        if not self._still_ours():
            return
        names = set(filter(self._is_ours, _visible(storage.tree(self._local))))
        units = self._complete(names)
        new_units = [unit for unit in sorted(units) if self._is_new(f"{unit}/{MANIFEST}")]
        loose = {n for n in names if self._layout.unit(n) is None}
        names = loose | {n for n in names if self._layout.unit(n) in units}
        single = {n for n in loose if self._layout.single.fullmatch(n)}
        new_single = [name for name in sorted(single) if self._is_new(name)]
        last = {n for n in loose if self._layout.last.fullmatch(n)}
        if complete_only and not new_units and not new_single and not any(map(self._is_new, last)):
            return
        try:
            self._send_copies(loose - single - last)
            for name in new_single:
                self._send(name, os.path.join(self._local, name))
            for unit in new_units:
                self._send_unit(unit)
            self._send_copies(last)
            self._delete(names, {os.path.dirname(unit) for unit in units})
        finally:
            shutil.rmtree(self._stage, ignore_errors=True)
            self._write_note()

    def forget(self) -> None:
        shutil.rmtree(self._local)
        if self._took_over:
            self._remove([TURN])
        os.remove(self._note)

    def _send_unit(self, unit: str) -> None:
        """Upload a unit via links, since it may be deleted meanwhile; its manifest last."""
        place, stage = os.path.join(self._local, unit), os.path.join(self._stage, unit)
        shutil.rmtree(stage, ignore_errors=True)
        os.makedirs(stage)
        try:
            stamp = _stamp(os.path.join(place, MANIFEST))
            names = sorted(os.listdir(place))
            for name in names:
                os.link(os.path.join(place, name), os.path.join(stage, name))
            # The manifest is deleted first: while it exists, the unit is complete.
            if _stamp(os.path.join(place, MANIFEST)) != stamp:
                return
        except FileNotFoundError:
            return
        manifest = f"{unit}/{MANIFEST}"
        if manifest in self._there:  # of a damaged unit, which was rewritten
            self._remove([manifest])
        for name in names:
            if name != MANIFEST:
                self._send(f"{unit}/{name}", os.path.join(stage, name))
        self._send(manifest, os.path.join(stage, MANIFEST), stamp)

    def _send_copies(self, names: Iterable[str]) -> None:
        """Upload snapshots of files that may still change."""
        for name in sorted(filter(self._is_new, names)):
            copy = os.path.join(self._stage, "copy")
            os.makedirs(self._stage, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                place = os.path.join(self._local, name)
                stamp = _stamp(place)
                shutil.copyfile(place, copy)
                self._send(name, copy, stamp)

    def _send(self, name: str, path: str, stamp: Stamp | None = None) -> None:
        if not self._may_write():
            return
        storage.upload(path, storage.join(self.output, name))
        self._there.add(name)
        self._sent[name] = stamp or _stamp(path)

    def _delete(self, names: set[str], replaced: set[str]) -> None:
        """Delete locally removed files from the bucket, manifests first.

        Units stay until a local unit in the same folder has ``replaced`` them.
        """
        gone = {
            name
            for name in self._there - names
            if (unit := self._layout.unit(name)) is None or os.path.dirname(unit) in replaced
        }
        manifests = {name for name in gone if os.path.basename(name) == MANIFEST}
        self._remove(manifests)
        self._remove(gone - manifests)

    def _remove(self, names: Iterable[str]) -> None:
        names = sorted(names)
        if not names or not self._may_write():
            return
        storage.remove_files([storage.join(self.output, name) for name in names])
        self._there.difference_update(names)
        for name in names:
            self._sent.pop(name, None)

    def _may_write(self) -> bool:
        """Whether the bucket is still ours; claims it before the first write."""
        if not self._still_ours():
            return False
        if not self._took_over:
            storage.write_bytes(storage.join(self.output, TURN), self._turn.encode())
            self._took_over = True
        return True

    def _complete(self, names: set[str]) -> set[str]:
        units = {unit for name in names if (unit := self._layout.unit(name)) is not None}
        return {unit for unit in units if f"{unit}/{MANIFEST}" in names}

    def _is_ours(self, name: str) -> bool:
        path = os.path.join(self._local, name)
        is_file = os.path.isfile(path) and not os.path.islink(path)
        return is_file and self._layout.ours.fullmatch(name) is not None

    def _is_new(self, name: str) -> bool:
        try:
            return self._sent.get(name) != _stamp(os.path.join(self._local, name))
        except FileNotFoundError:
            return False

    def _write_note(self) -> None:
        storage.write_json(self._note, {"turn": self._turn, "sent": self._sent})


def _visible(names: Iterable[str]) -> Iterator[str]:
    """Names of all files but locks, temporary files and the mirror's own."""
    hidden = (files.TEMPORARY, files.LOCK)
    for name in names:
        if name != TURN and not any(part.startswith(hidden) for part in name.split("/")):
            yield name


def _stamp(path: str) -> Stamp:
    about = os.stat(path)
    return about.st_mtime_ns, about.st_size
