"""A bucket in memory, with faults: the interface of :mod:`winnow.object_stores.bucket`."""

import contextlib
import hashlib
from collections import Counter

from winnow.object_stores import object_store
from winnow.object_stores.bucket import Stat


class Cut(BaseException):
    """What a kill is to a thread: nothing handles it, and no request follows."""


class MemoryBucket:
    """``before`` and ``after`` are called with each request's kind and key, and may raise."""

    def __init__(self):
        self.objects = {}
        self.asked = Counter()
        self.before = self.after = lambda kind, key: None

    @contextlib.contextmanager
    def _request(self, kind, key):
        self.asked[kind] += 1
        self.before(kind, key)
        yield
        self.after(kind, key)

    def stat(self, key):
        with self._request("stat", key):
            found = self.objects.get(key)
            return None if found is None else Stat(len(found), _version(found))

    def read(self, key, start, end, version):
        with self._request("read", key):
            if key not in self.objects:
                raise FileNotFoundError(key)
            if _version(self.objects[key]) != version:
                raise FileExistsError(key)
            return self.objects[key][start:end]

    def upload(self, key, file):
        with self._request("upload", key):
            file.seek(0)
            self.objects[key] = file.read()

    def replace(self, key, content, version):
        with self._request("replace", key):
            there = self.objects.get(key)
            if (None if there is None else _version(there)) != version:
                return None
            self.objects[key] = content
            return _version(content)

    def keys(self, prefix, direct=False):
        with self._request("keys", prefix):
            found = [key for key in sorted(self.objects) if key.startswith(prefix)]
        return iter([k for k in found if not direct or "/" not in k[len(prefix) :]])

    def delete(self, keys):
        for key in keys:
            with self._request("delete", key):
                self.objects.pop(key, None)

    def abort_uploads(self, prefix, chosen):
        pass


def _version(content):
    return hashlib.sha256(content).hexdigest()


def install(monkeypatch):
    """A bucket that every ``s3://`` path of this process is in."""
    bucket = MemoryBucket()
    monkeypatch.setattr(object_store, "_bucket", lambda scheme, name: bucket)
    return bucket
