"""Which files a run reads: globs against Python's own, and every file once."""

import glob
import itertools
import os
import random
import socket
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from pipeline.core.plan import plan_tasks
from pipeline.readers import ReadOptions
from pipeline.steps.decontamination import Decontamination
from pipeline.steps.words.lists import read_lists
from quality_classifier.scoring import load_classifier
from quality_classifier.train_config import TrainConfig
from quality_classifier.training import documents as train_documents
from quality_classifier.training.documents import Input, Source, find_sources
from winnow import globs
from winnow.filesystem import inputs, storage

LINE = '{"text": "one two three"}\n'

PARTS = ("*", "**", "a", "b*", "[ab]", "?", ".*", ".h", "*.x", "c.x", "..", ".", "", "nowhere")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Some folders and files, hidden ones among them, without links."""
    top = tmp_path / "p/q/r/s/t"  # so that ".." leads to nothing else
    for path in [
        "a/c.x",
        "a/b/c.x",
        "a/b/.h/c.x",
        "b/d.x",
        "b1/a/b/e.x",
        ".h/a/c.x",
        "c.x",
        ".c.x",
    ]:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(LINE)
    monkeypatch.chdir(top)
    return top


def test_globs_match_what_pythons_own_do_by_the_same_names(tree):
    choose = random.Random(0)
    patterns = ["/".join(parts) for n in (1, 2) for parts in itertools.product(PARTS, repeat=n)]
    for _ in range(2000):
        parts = choose.choices(PARTS, k=choose.choice((1, 2, 3)))
        patterns.append("/".join([*parts, choose.choice(("*", "**", "*.x", "c.x", "[!b].x"))]))
    patterns = [pattern for pattern in patterns if not pattern.startswith("/")]
    patterns += [f"{tree}/{pattern}" for pattern in choose.sample(patterns, 500)]
    seen = 0
    for pattern in patterns:
        expected = set(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
        assert set(filter(os.path.isfile, globs.find(pattern))) == expected, pattern
        seen += len(expected)
    assert seen > 1000


def test_a_folder_means_its_data_files_and_the_rest_is_named(tree):
    for name in ("_SUCCESS", "a/.part-0.crc", "a/c.x.md5", "b/d.x.tmp", "SHA256SUMS", "README.md"):
        (tree / name).write_text("no data")
    for folder in ("_temporary/0", "_a=1"):
        (tree / folder).mkdir(parents=True)
        (tree / folder / "part.x").write_text("data of a failed job, of a partition")
    said = []
    for folder in (".", str(tree), f"{tree}/"):
        found = inputs.find(folder, said.append)
        assert [os.path.relpath(path, tree) for path in found] == sorted(
            ["_a=1/part.x", "a/b/c.x", "a/c.x", "b/d.x", "b1/a/b/e.x", "c.x"]
        )
    # Hidden: .c.x, .h and .part-0.crc, and a/b/.h.
    assert said[0] == ".: skipped, not data by name: .c.x, .h, .h and 7 more"
    assert inputs.find("a/c.x", said.append) == ["a/c.x"]
    assert len(said) == 3
    # Names above the folder do not matter.
    assert inputs.find("_temporary/0", said.append) == ["_temporary/0/part.x"]
    (tree / "empty").mkdir()
    with pytest.raises(ValueError, match="nothing matches"):
        inputs.find("empty", said.append)
    (tree / "empty" / "_SUCCESS").touch()
    with pytest.raises(ValueError, match="holds no data"):
        inputs.find("empty", said.append)


def test_loops_of_links_end_and_every_file_is_found_once(tree):
    for name in ("l1", "l2", "a/l3"):  # two links in one folder: 2**40 paths for Python's glob
        (tree / name).symlink_to(tree)
    (tree / "self").symlink_to("self")
    (tree / "to_b").symlink_to("b")
    assert storage.find("**/*.x") == ["a/b/c.x", "a/c.x", "b/d.x", "b1/a/b/e.x", "c.x"]
    assert storage.find("l1/**/b/*.x") == ["l1/a/b/c.x", "l1/b/d.x", "l1/b1/a/b/e.x"]


def test_what_only_links_lead_to_is_found(tree, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "deep").mkdir()
    (outside / "deep" / "o.x").write_text(LINE)
    (tree / "z1").symlink_to(outside)
    (tree / "a" / "z2").symlink_to(outside)
    assert storage.find("**/o.x") in (["z1/deep/o.x"], ["a/z2/deep/o.x"])


def paths_of(sources, said=None):
    tasks = plan_tasks(sources, [], 1 << 20, say=(said if said is not None else []).append)
    return [(task.source, task.input.path) for task in tasks]


@pytest.mark.parametrize("order", [1, -1])
def test_a_file_that_a_source_has_by_several_paths_is_read_once(tree, order):
    (tree / "link.x").symlink_to("a/c.x")
    (tree / "folder").symlink_to("a")
    os.link("a/c.x", "a/hard.x")
    patterns = ["a/c.x", "./a/c.x", f"{tree}/a/c.x", "a//c.x", "link.x", "folder/*.x", "a/*.x"]
    said = []
    assert paths_of({"web": [*patterns, "b/d.x"][::order]}, said) == [
        ("web", "a/c.x"),
        ("web", "b/d.x"),
    ]
    assert len(said) == 1
    assert said[0].startswith("warning: source 'web': 8 paths lead to 1 file, read once (")


def test_plain_inputs_are_read_without_a_word(tree):
    said = []
    assert paths_of({"web": ["a/c.x", "a/*.x", "b/d.x"]}, said) == [
        ("web", "a/c.x"),
        ("web", "b/d.x"),
    ]
    assert said == []


@pytest.mark.parametrize(
    "other",
    ["a/c.x", "./a/c.x", "{}/a/c.x", "a//c.x", "link.x", "hard.x", "folder/*", "loop/**/c.x"],
)
def test_one_file_in_two_sources_is_refused_by_both_names(tree, other):
    (tree / "link.x").symlink_to("a/c.x")
    (tree / "folder").symlink_to("a")
    (tree / "loop").symlink_to(".")
    os.link("a/c.x", "hard.x")
    with pytest.raises(ValueError, match=r"in two sources, 'raw'.* and 'whole'") as error:
        paths_of({"raw": ["a/c.x"], "whole": [other.format(tree)]})
    assert "a/c.x" in str(error.value)
    assert other.format(tree).removesuffix("*").removesuffix("**/c.x") in str(error.value)


def test_equal_files_of_two_names_are_two_files(tree):
    assert paths_of({"raw": ["a/c.x"], "whole": ["b/d.x"]}) == [
        ("raw", "a/c.x"),
        ("whole", "b/d.x"),
    ]


def test_training_input_takes_a_file_once_and_for_one_class_only(tree):
    said = []
    (tree / "link.x").symlink_to("a/c.x")
    values = {"positive": ["a/c.x", "./a/c.x", "link.x"], "negative": ["b/d.x"]}
    found = find_sources(values, {}, storage.find, said.append)
    assert [(s.name, s.paths) for s in found] == [("c", ("a/c.x",)), ("d", ("b/d.x",))]
    assert said == ["warning: positive: 3 paths lead to 1 file, read once (./a/c.x is a/c.x)"]
    for negative in ("link.x", ["./a/c.x"], {"web": f"{tree}/a/*.x"}):
        with pytest.raises(ValueError, match=r"in two sources, positive c \(as a/c\.x\) and neg"):
            find_sources({"positive": "a/c.x", "negative": negative}, {}, storage.find, said.append)
    with pytest.raises(ValueError, match="in two sources, positive one"):
        find_sources({"positive": {"one": "a/c.x", "two": "link.x"}}, {}, storage.find, said.append)


def test_training_has_every_reading_option_of_the_pipeline():
    names = [{field.name for field in fields(kind)} for kind in (ReadOptions, TrainConfig)]
    assert names[0] <= names[1]


def test_training_input_is_read_by_the_options_of_the_settings(tmp_path):
    """The same that the pipeline reads by; a classifier would else learn from other text."""
    (tmp_path / "a.txt").write_text("one\ntwo\nthree words here\n")
    sources = [Source("positive", "a", (str(tmp_path / "a.txt"),), {"text": "text"})]
    read = [
        train_documents.read(sources, Input(options, ()), lambda line: None)
        for options in (
            ReadOptions(),
            ReadOptions(text_document="line"),
            ReadOptions(text_document="line", max_document_bytes=5),
        )
    ]
    assert [table["text"].to_pylist() for table, _ in read] == [
        ["one\ntwo\nthree words here\n"],
        ["one", "two", "three words here"],
        ["one", "two"],
    ]
    assert [[row["reason"] for row in bad] for _, bad in read] == [[], [], ["too_long"]]


def test_an_evaluation_file_counts_once(tree):
    (tree / "link.x").symlink_to("a/c.x")
    step = Decontamination(["a/c.x", "link.x", "./a/c.x"], ["text"], 2)
    assert step.notes == ["decontamination: a/c.x: 2 2-grams of 1 record"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("s3://bucket/a", "S3://bucket/a", True),
        ("s3://bucket/a", "s3://bucket//a", False),  # keys a and /a
        ("s3://bucket/a", "gs://bucket/a", False),
        ("hf://datasets/o/n/a", "hf://datasets/o/n@main/a", True),
        ("hf://datasets/o/n/a", "hf://datasets/o/n@dev/a", False),
    ],
)
def test_objects_are_the_same_by_name(one, other, same):
    assert (storage.identity(one) == storage.identity(other)) == same


@pytest.mark.parametrize("name", [b"caf\xe9.jsonl", b"caf\xe9/a.jsonl"])
def test_a_name_that_is_not_utf8_is_named(tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(os.fsdecode(path)).write_text(LINE)
    with pytest.raises(ValueError, match=r"caf\\xe9.* is not UTF-8: rename"):
        storage.find(f"{tmp_path}/**/*.jsonl")
    with pytest.raises(ValueError, match=r"caf\\xe9.* is not UTF-8: rename"):
        storage.find(os.fsdecode(path))


def test_names_with_brackets_are_found_as_they_are_written(tree):
    for path in ("br[1].x", "br1.x", "d[ab]/q.x", "da/q.x", "a/br[1].x", "[!a].x", "[[]x", "[x"):
        (tree / path).parent.mkdir(exist_ok=True)
        (tree / path).write_text(LINE)
    assert storage.find("br[1].x") == ["br[1].x"]
    assert storage.find(f"{tree}/br[1].x") == [f"{tree}/br[1].x"]
    assert storage.find("d[ab]/*.x") == ["d[ab]/q.x"]
    assert storage.find("d[a]/*.x") == ["da/q.x"]
    assert storage.find("**/br[1].x") == ["a/br[1].x", "br[1].x"]
    assert storage.find("*/br[1].x") == ["a/br[1].x"]
    assert storage.find("br[[]1].x") == ["br[1].x"]
    assert storage.find("br[12].x") == ["br1.x"]
    assert storage.find("[!a].x") == ["[!a].x"]
    assert storage.find("[[]x") == ["[[]x"]
    said = []
    (found,) = find_sources({"positive": "br[1].x"}, {}, storage.find, said.append)
    assert found.paths == ("br[1].x",)


@pytest.mark.parametrize(("name", "quoted"), [("q*.x", "q[*].x"), ("q?.x", "q[?].x")])
def test_a_file_with_a_star_in_its_name_is_read_alone_or_refused(tree, name, quoted):
    (tree / name).write_text(LINE)
    assert storage.find(name) == [name]
    (tree / "qa.x").write_text(LINE)
    with pytest.raises(ValueError, match="is a file, and matches 1 more"):
        storage.find(name)
    assert storage.find(quoted) == [name]


@pytest.mark.parametrize("kind", ["fifo", "socket", "link", "/dev/null", "glob"])
def test_what_cannot_be_read_again_is_named_at_once(tree, kind):
    os.mkfifo("pipe")
    (tree / "link").symlink_to("pipe")
    bound = socket.socket(socket.AF_UNIX)
    bound.bind("socket")
    path = {"fifo": "pipe", "glob": "p*"}.get(kind, kind)
    found = {"socket": "socket is a socket", "/dev/null": "/dev/null is a device"}
    message = found.get(kind, f"{path.replace('*', 'ipe')} is a pipe")
    with pytest.raises(ValueError, match=f"^{message}, but an input is read more than once"):
        storage.find(path)
    bound.close()


@pytest.mark.parametrize("given", ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
@pytest.mark.parametrize("kind", [subprocess.PIPE, "file", subprocess.DEVNULL])
def test_what_the_shell_gives_one_process_is_named_at_once(tree, given, kind):
    code = "import sys; from winnow.filesystem import storage; storage.find(sys.argv[1])"
    with open("c.x") as file:
        done = subprocess.Popen(
            [sys.executable, "-c", code, given],
            stdin=file if kind == "file" else kind,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = done.stderr.read()
        done.communicate()
    assert f"ValueError: {given} is " in said.splitlines()[-1]


def test_a_classifier_and_a_list_in_a_pipe_are_refused_at_once(tree):
    os.mkfifo("pipe")
    with pytest.raises(ValueError, match=r"^pipe is not a file"):
        load_classifier("pipe", "__label__a")
    with pytest.raises(ValueError, match=r"^pipe is a pipe"):
        Decontamination(["pipe"], ["text"], 2)
    with pytest.raises(ValueError, match=r"^pipe is a pipe"):
        read_lists(["pipe"])


@pytest.mark.slow
def test_the_command_line_names_it(quick_python, tmp_path):
    Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9.jsonl"))).write_text(LINE)
    run = Path(__file__).resolve().parents[2] / "pipeline" / "run.py"
    source = os.fsencode(f"--source=web={tmp_path}/**/*.jsonl")
    done = subprocess.run(
        [quick_python, run, source, "--classifier=c", f"--output={tmp_path}/out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("pipeline/run.py: error: ")
    assert "caf\\xe9" in done.stderr
