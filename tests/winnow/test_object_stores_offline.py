"""Object stores without a server: globs, missing extras and missing credentials."""

import contextlib
import glob
import sys

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.filesystem import storage
from winnow.object_stores import object_store, store_gcs

NAMES = st.sampled_from(["a", "b", "ab", ".a", "a.b", "b.b"])
GLOBS = st.sampled_from(["a", "*", "**", "?", "a*", "*b", "[!a]*", ".*", "*.b", "**b"])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.sets(st.lists(NAMES, min_size=1, max_size=4).map("/".join)), st.data())
def test_globs_mean_what_they_mean_on_a_local_disk(tmp_path_factory, paths, data):
    folder = tmp_path_factory.mktemp("glob")
    for path in sorted(paths, reverse=True):  # what is a folder here is not a file as well
        if not (folder / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(NotADirectoryError, FileExistsError):
                (folder / path).write_bytes(b"")
    files = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    pattern = "/".join(data.draw(st.lists(GLOBS, min_size=1, max_size=4)))
    local = glob.glob(pattern, root_dir=folder, recursive=True)
    # A file's name with a slash after it is what glob makes of a/** where a is a file.
    expected = {path for path in local if (folder / path).is_file() and path[-1] != "/"}
    found = {path for path in files if object_store.matches(path.split("/"), pattern.split("/"))}
    assert found == expected


@pytest.mark.parametrize(("module", "extra"), [("store_s3", "aws"), ("store_gcs", "gcp")])
def test_an_extra_that_is_missing_is_named(monkeypatch, module, extra):
    object_store._bucket.cache_clear()
    monkeypatch.setitem(sys.modules, f"winnow.object_stores.{module}", None)
    scheme = {"aws": "s3", "gcp": "gs"}[extra]
    with pytest.raises(ValueError, match=rf"winnow-lm\[{extra}\]"):
        storage.exists(f"{scheme}://bucket/file")


def test_google_cloud_without_credentials_is_refused_at_once(monkeypatch, tmp_path):
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "WINNOW_BEAM_OPTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # no look for a metadata server
    with pytest.raises(PermissionError, match=r"gs://b: .* no Google credentials: run `gcloud"):
        store_gcs.GcsBucket(PipelineOptions(), "b")
    store_gcs.GcsBucket(PipelineOptions(["--no_auth"]), "b")
