"""Every command in README and guides is run as it stands there, on a little real text.

Code blocks marked ``sh`` are run with bash, one after the other, page after page, in a folder that
holds what the guides take for granted; a command that an earlier page has run already is not run
again. ``SMALLER`` makes long commands short and changes nothing else; all start from one process
that has imported torch and Beam. Pipeline runs in blocks
marked ``sh not-run: REASON`` are parsed as the command would.
"""

import base64
import gzip
import json
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from pipeline import config
from pipeline.beam import engine

ROOT = Path(__file__).parents[2]
GUIDES = sorted([ROOT / "README.md", *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TEXT = ROOT / "tests" / "text"

RUN = ("README.md", "filtering.md", "training.md", "studies.md")

TINY = (
    "model.layers=2 model.width=32 model.hidden=64 model.heads=2 model.head_width=16"
    " model.experts=4 data.sequence_length=64 train.tokens=2_048 train.batch_rows=8"
    " evaluate.every=4 evaluate.bytes=5_000 evaluate.final_bytes=5_000 log.peak_tflops=1"
)
FEW = f"{TINY} jobs_at_once=1 allow_underpowered=true"
SMALLER = {
    "tokenizer.vocabulary=8192": "tokenizer.vocabulary=512 held_out=0.2",
    "train.tokens=1_000_000": TINY + " evaluate.every=0",
    "train.tokens=100_000": TINY + " evaluate.every=0",
    "experiment=data_quality corpus=corpus": "experiment=data_quality corpus=corpus "
    f"{FEW} 'hydra.sweeper.params.seed=\"1\"' "
    "'hydra.sweeper.params.data=\"unfiltered,pareto\"'",
    "seed=1,2,3,4,5 corpus=corpus study=mine": f"seed=1 corpus=corpus study=mine {FEW}",
    # So little text has too few documents that pass at 9.
    "--alpha 9": "--alpha 1",
}


def blocks(path: Path) -> list[tuple[str, str]]:
    """Marks and contents of the code blocks of a page."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[str]:
    """The commands of a page that are run, one by one, made shorter."""
    scripts = [script for mark, script in blocks(path) if mark == "sh"]
    lines = "".join(scripts).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        if not line.startswith("source "):
            for long, short in SMALLER.items():
                line = line.replace(long, short)
            found.append(" ".join(line.split()))
    return found


@pytest.fixture
def folder(tmp_path: Path, quick_python: Path) -> Path:
    """What the guides take for granted: the commands, a crawl, curated and raw text, tasks."""
    for name in ("pipeline", "quality_classifier", "model", "ablations", "conf", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    speeches, chat = documents(TEXT / "speeches.jsonl.gz"), documents(TEXT / "chat.jsonl.gz")
    write_jsonl(tmp_path / "curated" / "a.jsonl.gz", speeches[::2])
    write_jsonl(tmp_path / "wiki" / "a.jsonl.gz", speeches[1::4])
    write_warc(tmp_path / "sample" / "a.warc.gz", chat[::2])
    write_warc(tmp_path / "crawl" / "a.warc.gz", chat[1::2] + speeches[3::4])
    labelled = [
        row | {"score": grade} for rows, grade in ((chat, 2), (speeches, 3)) for row in rows
    ]
    (tmp_path / "annotated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "blimp.jsonl").write_bytes((TEXT / "blimp.jsonl").read_bytes())
    winnow = tmp_path / "bin" / "winnow"
    winnow.parent.mkdir()
    winnow.write_text(f'#!/bin/sh\nexec {shlex.quote(str(quick_python))} -m winnow "$@"\n')
    winnow.chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(quick_python)
    return tmp_path


def documents(path: Path, parts: int = 5) -> list[dict[str, str]]:
    """Some hundred documents: each text cut into ``parts``, since classifiers want many."""
    rows = []
    for line in gzip.decompress(path.read_bytes()).splitlines():
        row = json.loads(line)
        words = row["text"].split(" ")
        size = -(-len(words) // parts)
        pieces = [" ".join(words[k : k + size]) for k in range(0, len(words), size)]
        rows += [{"id": f"{row['id']}-{k}", "text": piece} for k, piece in enumerate(pieces)]
    return rows


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir()
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def write_warc(path: Path, rows: list[dict[str, str]]) -> None:
    """Each document as a page of its own."""
    path.parent.mkdir()
    with path.open("wb") as file:
        for row in rows:
            lines = row["text"].replace("&", "&amp;").replace("<", "&lt;").split("\n")
            body = "".join(f"<p>{line}</p>\n" for line in lines)
            page = f"<html><meta charset=utf-8><body><article>{body}</article></body></html>"
            http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + page.encode()
            name = base64.urlsafe_b64encode(row["id"].encode()).decode()
            head = (
                "WARC/1.0\r\nWARC-Type: response\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
                f"WARC-Record-ID: <urn:winnow:{name}>\r\n"
                f"WARC-Target-URI: https://www.example/{name}\r\n"
                "Content-Type: application/http; msgtype=response\r\n"
                f"Content-Length: {len(http)}\r\n\r\n"
            )
            file.write(gzip.compress(head.encode() + http + b"\r\n\r\n"))


@pytest.mark.slow
def test_every_command_of_the_guides_runs(folder: Path) -> None:
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "GLIBC_TUNABLES": "",  # or training starts itself again
    }
    pages = [ROOT / "README.md", *(ROOT / "docs" / name for name in RUN if name != "README.md")]
    for command in dict.fromkeys(command for page in pages for command in commands(page)):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (folder / "scored_alpha3/manifest.json").exists()
    assert (folder / "exported/tokenizer.json").exists()
    for study in ("data_quality", "mine"):
        assert (folder / "runs" / study / "report.html").stat().st_size > 10_000


def test_no_guide_has_commands_that_nothing_runs() -> None:
    assert {path.name for path in GUIDES if any(mark == "sh" for mark, _ in blocks(path))} == set(
        RUN
    )


def test_what_makes_commands_shorter_is_used() -> None:
    text = "".join(path.read_text() for path in GUIDES)
    assert [long for long in SMALLER if long not in text] == []


def pipeline_commands() -> list[list[str]]:
    """The flags of every pipeline run in a block that is not run."""
    scripts = [
        script for path in GUIDES for mark, script in blocks(path) if mark.startswith("sh not-run")
    ]
    lines = [line for script in scripts for line in script.replace("\\\n", " ").splitlines()]
    return [
        shlex.split(line)[2:]
        for line in lines
        if line.startswith(("winnow run ", "python pipeline/run.py "))
    ]


@pytest.mark.parametrize("flags", pipeline_commands(), ids=" ".join)
def test_commands_for_clusters_have_flags_that_exist(flags: list[str]) -> None:
    _, _, beam_flags = config.load(flags)
    assert engine.options(beam_flags).get_all_options()[
        "runner"
    ]  # it refuses flags that nobody knows


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_extras_and_links_that_guides_name_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for path in GUIDES:
        text = path.read_text()
        for names in re.findall(r"(?:winnow-lm|-e '?\.)\[([a-z,]+)\]", text):
            assert set(names.split(",")) <= set(extras["optional-dependencies"]), path
        for link, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", text):
            page = path.parent / link if link else path
            assert page.exists(), f"{path.name}: {link}"
            assert not anchor or anchor in anchors(page), f"{path.name}: {link}#{anchor}"


FOLDERS = "ablations benchmarks conf deploy docs model pipeline quality_classifier tests winnow"
PATHS = {
    path.relative_to(ROOT).as_posix()
    for top in FOLDERS.split()
    for path in (ROOT / top, *(ROOT / top).rglob("*"))
}
MADE = {"_work", "comparison", "crawl", "curated", "mine", "quarantine", "sample", "scored/reading"}
"""Folders that a reader of the guides has or gets."""
PAGES = [
    *sorted({*GUIDES, *(ROOT / "docs").rglob("*.md")}),
    *(ROOT / name for name in ("Makefile", ".ci/run", "deploy/Dockerfile", "pyproject.toml")),
]


def ends(name: str) -> list[str]:
    """The paths that end with a name."""
    return [path for path in PATHS if f"/{path}".endswith(f"/{name}")]


def missing(text: str) -> set[str]:
    """The files, names in them and make targets that a text mentions and that do not exist."""
    top = FOLDERS.replace(" ", "|")
    text = text.replace("/NAME.py", "").replace("/NAME.yaml", "")
    paths = set(re.findall(rf"(?<![\w/.-])(?:{top})/[\w/.-]*\w", text)) - PATHS
    short = re.findall(r"`([\w/]+(?:\.py|/))`", text)
    paths |= {name for name in short if not ends(name.rstrip("/"))}
    names = set()
    for name, file in re.findall(r"`(\w+)` (?:of|in) `([\w/]+\.py)`", text):
        if not any(name in (ROOT / path).read_text() for path in ends(file)):
            names.add(f"{name} of {file}")
    for dotted in re.findall(rf"`((?:{top})(?:\.\w+)+)", text.replace("`model.", "")):
        path = dotted.replace(".", "/")
        folder, _, name = path.rpartition("/")
        files = {f"{folder}.py", f"{folder}/__init__.py"} & PATHS
        modules = {path, f"{path}.py"} & PATHS
        if not modules and not any(name in (ROOT / file).read_text() for file in files):
            names.add(dotted)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = set(re.findall(r"`make ([\w-]+)`", text)) - set(targets)
    return {path.rstrip("/") for path in paths} - MADE | names | targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_only_what_exists(page: Path) -> None:
    assert missing(page.read_text()) == set()


def test_a_stale_name_is_noticed() -> None:
    stale = (
        "`model/gone.py`, `lost.py`, `gone/`, `GONE` of `pipeline/steps/__init__.py`,"
        " `pipeline.gone.x`, `pipeline.steps.Gone`, `make missing`"
    )
    assert len(missing(stale)) == 7
