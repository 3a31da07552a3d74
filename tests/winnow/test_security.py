"""Documents are hostile: what they name, what they unpack to, and how long they are."""

import ast
import csv
import gzip
import html.parser
import importlib.metadata
import json
import os
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from corpora import write_classifier
from faults import hostile
from faults.limits import call

from pipeline import run
from pipeline.readers.contract import Unreadable
from pipeline.readers.web.http_response import parse_response

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "quality_classifier", "model", "ablations", "benchmarks")
SPARE_BYTES = 1 << 30
SECONDS = 30
"""Computing time. Nothing here takes more than one or two; what is quadratic would take minutes."""


# Names


@pytest.mark.parametrize(
    "name", ["../../x", "a/b", "/x", "..", ".", ".x", "-x", "a\0", "a b", "", "a\n", "\u202ex", "é"]
)
def test_a_source_name_that_is_no_plain_name_is_refused(tmp_path, name):
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n')
    config = {"source": {name: f"{tmp_path}/x.jsonl"}, "classifier": "x", "output": "x"}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="source"):
        run.main([f"--config={tmp_path}/config.yaml", f"--output={tmp_path}/scored"])
    assert not (tmp_path / "scored").exists()


ATTACK = "</script></title><script>alert(1)</script><img src=x onerror=alert(1)>"
HOSTILE = [
    "../../../../etc/passwd",
    "/etc/passwd",
    "..\\..\\x",
    "a\0b",
    "a\nb",
    "$(touch x)",
    "\u202egnp.exe",
    "con.",
    "x" * 5000,
    ATTACK,
]


class _Tags(html.parser.HTMLParser):
    """What a browser would make of a page, roughly."""

    def __init__(self):
        super().__init__()
        self.scripts = 0
        self.handlers = []
        self.links = []

    def handle_starttag(self, tag, attributes):
        self.scripts += tag in ("script", "img", "iframe", "object", "embed")
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        self.links += [value for name, value in attributes if name in ("src", "href") and value]


def _tags(page: Path) -> _Tags:
    tags = _Tags()
    tags.feed(page.read_text())
    return tags


@pytest.mark.slow
def test_nothing_that_a_document_names_is_a_path_or_runs(tmp_path):
    """Ids, URLs, fields, texts, file names: all files are ours, and the page is as without them."""
    rows = [
        {"text": f"{name} {other}", "id": name, "url": f"http://{other}/{name}", "field": name}
        for name in HOSTILE
        for other in HOSTILE
    ]
    rows += [{"text": ATTACK, "url": f"javascript:{name}"} for name in HOSTILE]
    rows += [{"text": "long", "url": "http://" + "a." * 500_000 + "com/"}]
    bad = [{"text": 7, "id": name, "x": ATTACK} for name in HOSTILE]
    calm = [
        {"text": f"calm {i}", "id": str(i), "url": "http://a.b/", "field": "calm"}
        for i in range(len(rows))
    ]
    for folder, names, content in (
        ("hostile", ["a.jsonl", "a..\\x\n.jsonl", "<script>x.jsonl", "$(touch x).jsonl"], rows),
        ("calm", ["a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl"], calm),
    ):
        for i, name in enumerate(names):
            path = tmp_path / folder / name
            path.parent.mkdir(exist_ok=True)
            lines = content[i :: len(names)] + bad
            path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    write_classifier(tmp_path / "classifier")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    for folder in ("hostile", "calm"):
        run.main(
            [
                f"--source=web={tmp_path}/{folder}/*",
                "--filter=web",
                "--metadata=field",
                f"--classifier={tmp_path}/classifier",
                f"--output={tmp_path}/scored/{folder}",
            ]
        )
    output = tmp_path / "scored"
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path not in before]
    assert all(output in path.parents for path in written)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    names = {path.relative_to(output / "hostile") for path in (output / "hostile").rglob("*")}
    assert names == {path.relative_to(output / "calm") for path in (output / "calm").rglob("*")}
    assert all(re.fullmatch(r"[\w.-]+", part) for name in names for part in name.parts)
    attacked, plain = (_tags(output / folder / "report.html") for folder in ("hostile", "calm"))
    assert attacked.scripts == plain.scripts
    assert attacked.handlers == []
    assert attacked.links == plain.links
    assert (output / "hostile" / "report.html").stat().st_size < 4 << 20
    assert ATTACK not in (output / "hostile" / "README.md").read_text()


# Bombs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reasons", "megabytes"),
    [
        ("line.jsonl.gz", ["too_long"], 900),
        ("newlines.jsonl.gz", [], 200),
        ("line.jsonl.zst", ["too_long"], 900),
        ("window.jsonl.zst", ["zstd_window"], 900),
        ("record.warc.gz", ["too_long"], 900),
        ("header.warc.gz", ["bad_warc"], 900),
    ],
)
def test_what_unpacks_to_far_more_takes_little_memory_and_hides_nothing(name, reasons, megabytes):
    spare = megabytes << 20
    found = call(hostile.read, name, hostile.bomb(name), spare_bytes=spare, seconds=SECONDS)
    assert found[:2] == (1, reasons)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["dictionary.parquet", "id.parquet", "dictionary.arrow", "id.arrow",
     "views.arrow"],
)  # fmt: skip
def test_few_bytes_that_many_rows_share_are_not_decoded_at_once(name):
    data = hostile.columnar_bomb(name)
    documents, bad, longest = call(
        hostile.read, name, data, spare_bytes=SPARE_BYTES, seconds=SECONDS
    )
    assert (documents, bad) == (hostile.ROWS, [])
    assert longest < 64 << 20


@pytest.mark.parametrize("form", ["file", "stream"])
@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_an_arrow_batch_that_unpacks_to_far_more_than_it_is_is_quarantined(form, compression):
    data = hostile.packed_batch(form, compression)
    # There is room for it, and were it unpacked it would be too_long.
    found = call(hostile.read, "x.arrow", data, spare_bytes=5 << 30, seconds=SECONDS)
    assert found[:2] == (2 if form == "file" else 1, ["corrupt_arrow"])


def test_an_http_body_packed_many_times_is_quarantined():
    headers = b"HTTP/1.1 200 OK\r\nContent-Encoding: " + b"gzip, " * 40_000 + b"gzip\r\n\r\n"
    body = gzip.compress(b"x")
    with pytest.raises(Unreadable, match="bad_http"):
        parse_response(headers + body, 1 << 20)


# Long and deep things


@pytest.mark.slow
@pytest.mark.parametrize("name", hostile.PAGES)
def test_huge_pages_end(name):
    documents, bad, _ = call(hostile.read_page, name, spare_bytes=SPARE_BYTES, seconds=SECONDS)
    assert documents + len(bad) <= 1


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":['])
def test_deeply_nested_json_ends(opening):
    line = '{"text": "a", "id": ' + opening * 100_000
    data = (line + "\n" + '{"text": "b"}\n').encode()
    found = call(hostile.read, "x.jsonl", data, spare_bytes=400 << 20, seconds=SECONDS)
    assert found[:2] == (1, ["bad_json"])


STEPS = ["url_blocklist", "gopher", "gopher_repetition", "c4", "fineweb", "decontamination"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*STEPS, "language"])
def test_every_step_ends_on_lines_of_2_megabytes(name, tmp_path):
    """Hundredths of a second each; a step that is quadratic in the length would take hours."""
    (tmp_path / "list").write_text("badword\nbad.example\n")
    evaluation = json.dumps({"text": "one of the sentences that models are tested on " * 3})
    (tmp_path / "evaluation.jsonl").write_text(evaluation + "\n")
    arguments = (name, str(tmp_path), 2 << 20)
    assert call(hostile.apply_step, *arguments, spare_bytes=SPARE_BYTES, seconds=SECONDS) == len(
        hostile.UNITS
    )


# Code


FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.load",
    "marshal.loads",
    "shelve.open",
    "joblib.load",
    "dill.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
    "pd.read_pickle",
    "pandas.read_pickle",
}
EXCEPTIONS = {
    # Its find_class allows a handful of names; test_training_checkpoint.py attacks it.
    ("model/training/checkpoints/checkpoint.py", "pickle.Unpickler"),
    # Of files without a name, which only the process that wrote them can open.
    ("winnow/spool.py", "pickle.load"),
}


def _calls(path: Path):
    """Every name in a file that is called or derived from, as it is written, and its keywords."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                yield ast.unparse(base), {}


def _offences(path: Path, name: str):
    for called, keywords in _calls(path):
        if called in FORBIDDEN and (name, called) not in EXCEPTIONS:
            yield f"{name}: {called}"
        if called == "torch.load" and keywords.get("weights_only") != "True":
            yield f"{name}: {called} without weights_only=True"
        if called.endswith("np.load") and keywords.get("allow_pickle") != "False":
            yield f"{name}: {called} without allow_pickle=False"
        if keywords.get("shell", "False") != "False":
            yield f"{name}: {called} with a shell"
        if keywords.get("trust_remote_code", "False") != "False":
            yield f"{name}: {called} runs a stranger's code"


def test_nothing_is_unpickled_evaluated_or_given_to_a_shell():
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(files) > 100
    found = [o for path in files for o in _offences(path, str(path.relative_to(ROOT)))]
    assert found == []


def test_what_is_forbidden_is_found(tmp_path):
    bad = [
        "pickle.loads(x)", "eval(x)", "torch.load(x)", "torch.load(x, weights_only=False)",
        "np.load(x)", "np.load(x, allow_pickle=True)", "subprocess.run(x, shell=True)",
        "yaml.load(x)", "f(trust_remote_code=True)",
    ]  # fmt: skip
    path = tmp_path / "x.py"
    path.write_text("\n".join(bad))
    assert len(list(_offences(path, "x.py"))) == len(bad)


# Dependencies


def _requirements(path: Path) -> list[str]:
    """The logical lines of a lock file, without comments."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    return [line for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines() if line.strip()]


@pytest.mark.parametrize("name", ["data.txt", "dev.txt"])
def test_every_dependency_is_pinned_with_hashes(name):
    lines = _requirements(ROOT / "requirements" / name)
    assert len(lines) > 50
    pinned = re.compile(r"[a-z0-9._-]+==[^ ]+( ; [^-]+)?( --hash=sha256:[0-9a-f]{64})+")
    assert [line for line in lines if not pinned.fullmatch(line.rstrip())] == []
    assert "--require-hashes -r requirements/" in (ROOT / "Makefile").read_text()


def test_no_two_distributions_own_one_file():
    """Which of two is left depends on the order of installation."""
    owners = defaultdict(set)
    for distribution in importlib.metadata.distributions():
        name, folder = distribution.name, str(distribution.locate_file(""))
        for file, *_ in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
            owners[os.path.normpath(os.path.join(folder, file))].add(name)
    assert len(owners) > 1000
    assert {file: names for file, names in owners.items() if len(names) > 1} == {}


def test_torch_alone_has_no_hash_and_the_file_says_why():
    for name in ("data.txt", "dev.txt"):
        lines = _requirements(ROOT / "requirements" / name)
        assert [line for line in lines if re.match("torch|nvidia-|triton", line)] == []
    path = ROOT / "requirements" / "torch.txt"
    assert [line.partition("==")[0] for line in _requirements(path)] == ["torch"]
    assert "hash" in path.read_text().splitlines()[0]


def test_the_lock_files_are_of_the_same_versions():
    def versions(name):
        return {line.split()[0] for line in _requirements(ROOT / "requirements" / name)}

    assert versions("data.txt") <= versions("dev.txt")


# Secrets


SECRET = "sw0rdf1sh-0123456789"


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True])
def test_secrets_are_in_no_file_and_no_message(quick_python, tmp_path, broken):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 3)
    write_classifier(tmp_path / "classifier")
    environment = dict.fromkeys(
        ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "GITHUB_TOKEN"), SECRET
    )
    output = tmp_path / "scored"
    command = [
        *[quick_python, ROOT / "pipeline" / "run.py", f"--source=web={tmp_path}/a.jsonl"],
        *[f"--classifier={tmp_path}/classifier", f"--output={output}"],
        *[f"--s3_secret_access_key={SECRET}", f"--s3_session_token={SECRET}"],
    ]
    if broken:  # an error within a worker
        output.mkdir()
        (output / "shards").write_text("in the way")
        command.append("--resume")
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, check=False
    )
    assert done.returncode == broken, done.stderr
    assert SECRET not in done.stdout + done.stderr
    for path in output.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path
