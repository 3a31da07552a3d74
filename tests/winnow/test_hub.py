"""Finished runs on the Hugging Face hub, for whose HTTP interface a server here stands in."""

import time

import huggingface_hub
import numpy as np
import pytest
from hub_server import TOKEN, Hub
from huggingface_hub import constants
from report_run import invented, write_run
from store_servers import Faulty, at_random

from pipeline import push as command
from pipeline.output import hub as pushing
from pipeline.rules.decision import Rule
from winnow.filesystem import storage

URL = "hf://datasets/me/crawl"
PAGES = {"report.html", "README.md", "manifest.json"}


def run_of(folder, sources):
    batches = {
        name: invented(name, rows, np.random.default_rng(rows)) for name, rows in sources.items()
    }
    write_run(folder, batches, Rule("pareto", 9.0), {"web"})
    (folder / "quarantine").mkdir()
    (folder / "quarantine" / "data-web-00000-of-00001.jsonl").write_text("{}\n")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("run"), {"web": 50, "wiki": 20, "default": 7})


def contents(folder):
    """What a push of a run has to send, by name."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    return {name: found[name] for name in found if not name.startswith("quarantine/")}


@pytest.fixture
def hub(monkeypatch):
    with Hub() as server:
        reach(server.port, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(pushing, "WAITS", (0.0, 0.0, 0.0))
        pause = time.sleep
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda s: pause(min(s, 0.01)))
        yield server


def reach(port, monkeypatch):
    """Points the hub's client to a port of this machine."""
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def push(folder, url=URL, private=True):
    return pushing.push(str(folder), url, private=private, say=lambda text: None)


def test_a_run_is_pushed_and_loads_by_source(hub, run, tmp_path, monkeypatch):
    sent = push(run)
    held = hub.repos["me/crawl"]
    assert held == {**contents(run), ".gitattributes": held[".gitattributes"]}
    assert hub.private == {"me/crawl": True}
    assert (sent.commits, sent.files, sent.unchanged) == (1, len(held) - 1, 0)
    assert sent.size == sum(map(len, contents(run).values()))
    # Our own reader takes it from there.
    huggingface_hub.HfFileSystem.clear_instance_cache()
    shards = storage.find(f"{URL}/shards/*.arrow")
    assert [path.rpartition("/")[2] for path in shards] == [
        f"data-{source}-00000-of-00001.arrow" for source in ("default", "web", "wiki")
    ]
    with storage.open_input(shards[1]) as file:
        assert file.read() == held["shards/data-web-00000-of-00001.arrow"]

    import datasets

    for name, content in held.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(content)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    copy, cache = str(tmp_path / "copy"), str(tmp_path / "cache")
    assert set(datasets.get_dataset_config_names(copy)) == {"default", "default_all", "web", "wiki"}
    for name, rows in (("default_all", 77), ("default", 7), ("web", 50), ("wiki", 20)):
        loaded = datasets.load_dataset(copy, name, split="train", cache_dir=cache)
        assert loaded.num_rows == rows
        assert name == "default_all" or set(loaded["source"]) == {name}


def test_an_output_of_a_run_is_pushed_when_it_is_complete():
    with pytest.raises(ValueError, match=r"hf:// can only be read: .*`winnow push`"):
        storage.write_bytes(f"{URL}/manifest.json", b"{}")


def test_what_is_there_is_not_sent_again(hub, run):
    first = push(run)
    again = push(run)
    assert (again.files, again.commits, again.unchanged) == (0, 0, first.files)
    assert len(hub.commits) == 1
    # A file that was changed there, to one of equal length, is put right, alone.
    held = hub.repos["me/crawl"]
    name = "shards/data-web-00000-of-00001.arrow"
    held[name], held["README.md"] = held[name][::-1], held["README.md"][::-1]
    assert push(run).files == 2
    assert contents(run).items() <= hub.repos["me/crawl"].items()


def test_an_interrupted_push_goes_on_where_it_was(hub, run, monkeypatch):
    monkeypatch.setattr(pushing, "COMMIT_FILES", 2)
    commits = []

    def fails_from_the_third_on(number, method, path):
        commits.extend([path] if "/commit/" in path else [])
        return "503" if len(commits) > 2 else None

    with Faulty(hub.port, fails_from_the_third_on) as proxy:
        reach(proxy.port, monkeypatch)
        with pytest.raises(OSError, match=r"answers 503.*: run the same command again"):
            push(run)
    held = set(hub.repos["me/crawl"])
    assert len(held) == 2 * 2 + 1
    assert not held & PAGES
    reach(hub.port, monkeypatch)
    sent = push(run)
    assert sent.unchanged == 4
    assert sent.files == len(contents(run)) - 4
    assert contents(run).items() <= hub.repos["me/crawl"].items()
    assert set(hub.uploads.values()) == {1}
    # Only with the last commit there is a manifest.
    assert [("manifest.json" in files) for _, files in hub.commits].index(True) == (
        len(hub.commits) - 1
    )


def test_a_lost_answer_is_no_second_commit(hub, run, monkeypatch):
    lost = {"/commit/", "/create", "/store/"}

    def once(number, method, path):
        for part in list(lost):
            if part in path:
                lost.remove(part)
                return "unanswered"
        return None

    with Faulty(hub.port, once) as proxy:
        reach(proxy.port, monkeypatch)
        push(run)
    assert not lost
    assert len(hub.commits) == 1
    assert contents(run).items() <= hub.repos["me/crawl"].items()


def test_random_faults_change_nothing_of_what_arrives(hub, run, monkeypatch):
    monkeypatch.setattr(pushing, "WAITS", (0.0,) * 30)
    monkeypatch.setattr(pushing, "COMMIT_FILES", 3)
    faults = ("500", "503", "429", "refused", "unanswered", "cut")
    with Faulty(hub.port, at_random(1, 0.2, faults)) as proxy:
        reach(proxy.port, monkeypatch)
        push(run)
        assert sum(proxy.done.values()) - proxy.done[None] >= 5
    assert contents(run).items() <= hub.repos["me/crawl"].items()


def test_another_run_replaces_the_one_that_is_there(hub, run, tmp_path, monkeypatch):
    push(run)
    kept = {"notes.txt": b"mine", "shards/extra.arrow": b"mine too", "LICENSE": b"CC0"}
    hub.repos["me/crawl"].update(kept)
    other = run_of(tmp_path / "other", {"web": 50, "news": 30})
    monkeypatch.setattr(pushing, "COMMIT_FILES", 2)
    before = len(hub.commits)
    push(other)
    held = hub.repos["me/crawl"]
    held.pop(".gitattributes")
    assert held == contents(other) | kept
    between = hub.commits[before:-1]
    assert between
    assert all("manifest.json" not in files for _, files in between)


@pytest.mark.parametrize(
    ("url", "token", "message"),
    [
        ("hf://me/crawl", TOKEN, "names no data set of the hub: write hf://datasets/USER/NAME"),
        (URL, None, "no token for .*hf auth login"),
        (URL, "hf_old", "does not know the token for hf://datasets/me/crawl: log in"),
        ("hf://datasets/you/crawl", TOKEN, r"refuses .*You don't have the rights.* of you"),
        ("hf://datasets/me/books", TOKEN, r"holds other files \(train.csv\) and no run"),
        ("hf://datasets/me/-x-", TOKEN, "-x-"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(hub, run, monkeypatch, url, token, message):
    monkeypatch.setenv("HF_TOKEN", token or "")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    hub.repos["me/books"] = {"README.md": b"", "train.csv": b"a\n"}
    with pytest.raises((ValueError, OSError), match=message) as raised:
        push(run, url)
    assert "\n" not in str(raised.value)
    assert hub.commits == []


def test_the_command_says_what_is_wrong_and_what_was_sent(hub, run, tmp_path, monkeypatch, capsys):
    command.main([str(run), URL])
    said = capsys.readouterr().out
    assert f"{URL}: {len(contents(run))} files" in said
    assert 'datasets.load_dataset("me/crawl")' in said
    with pytest.raises(SystemExit) as ended:
        command.main([str(tmp_path), URL])
    assert ended.value.code == 1
    assert "has no manifest.json" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        command.main([str(run), "datasets/me/crawl"])
    assert ended.value.code == 2
    assert "names no data set" in capsys.readouterr().err
    monkeypatch.setattr(pushing, "WAITS", ())
    reach(1, monkeypatch)
    with pytest.raises(SystemExit) as ended:
        command.main([str(run), URL])
    assert ended.value.code == 1
    assert "127.0.0.1:1 can't be reached" in (said := capsys.readouterr().err)
    assert len(said.splitlines()) == 1
