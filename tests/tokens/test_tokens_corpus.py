"""The corpus: what is in it, that it is repeatable and resumable, and what it refuses."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from tokenizers import Tokenizer, normalizers
from tokens_scored import documents, make_corpus, settings, to_batch, write_scored

from model.data import scored, tokenizer
from model.data.corpus import open_corpus, write_arm
from model.prepare import _prepare_and_report as prepare_and_tell
from model.prepare import prepare, sample_texts
from winnow.filesystem import files

SHARDS = [documents(45, seed=0), documents(30, seed=1), documents(1, seed=2)]
ROWS = [row for shard in SHARDS for row in shard]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("made"), SHARDS)


@pytest.fixture
def folders(made, tmp_path):
    """Copies of the scored folder and the corpus that a test may spoil."""
    source = Path(made.folder).parent
    shutil.copytree(source, tmp_path / "copy")
    return tmp_path / "copy" / "scored", tmp_path / "copy" / "corpus"


def place(row):
    return xxhash.xxh3_128_intdigest(row["text"].encode()) / 2**128


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def digests(folder):
    paths = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def test_two_at_once_into_one_folder_are_refused_and_a_killed_one_blocks_nothing(made, tmp_path):
    scored_folder = Path(made.folder).parent / "scored"
    output = tmp_path / "corpus"
    other = (
        "import sys, time; from winnow.filesystem import files\n"
        "with files.lock(sys.argv[1]):\n    print(flush=True)\n    time.sleep(600)"
    )
    command = [sys.executable, "-c", other, str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        with pytest.raises(ValueError, match="another run is writing to"):
            prepare(settings(scored_folder, output))
        assert sorted(p.name for p in output.iterdir()) == [files.LOCK]
        process.kill()
    corpus = prepare(settings(scored_folder, output))
    assert corpus.fingerprint == made.fingerprint
    assert not (output / files.LOCK).exists()


def test_every_document_is_there_in_order_and_reads_back(made):
    codec = tokenizer.load(made.tokenizer_path, "<eos>")
    assert len(made) == len(ROWS)
    assert made.ids(np.arange(len(ROWS))) == [row["id"] for row in ROWS]
    assert [codec.decode(made.tokens(i)) for i in range(len(ROWS))] == [r["text"] for r in ROWS]
    assert made.bytes.tolist() == [len(row["text"].encode()) for row in ROWS]
    assert made.lengths.tolist() == [len(made.tokens(i)) for i in range(len(ROWS))]
    assert [made.sources[i] for i in made.source_index] == [row["source"] for row in ROWS]
    assert made.id_hash.tolist() == [xxhash.xxh3_64_intdigest(r["id"].encode()) for r in ROWS]
    assert np.allclose(made.column("quality_score"), [row["quality_score"] for row in ROWS])


def test_arms_and_held_out_documents_follow_their_definition(made):
    held_out = np.array([place(row) < 0.2 for row in ROWS])
    reached = np.array([row["drop_reason"] in (None, "quality") for row in ROWS])
    kept = np.array([row["kept"] for row in ROWS])
    assert 0 < held_out.sum() < len(ROWS)
    assert not reached.all()
    assert made.held_out.tolist() == held_out.tolist()
    assert made.arm("unfiltered").mask.tolist() == (reached & ~held_out).tolist()
    assert made.arm("filtered").mask.tolist() == (kept & ~held_out).tolist()
    assert made.filterable.tolist() == [row["source"] == "web" for row in ROWS]
    web = [
        row for row, x in zip(ROWS, kept & ~held_out, strict=True) if x and row["source"] == "web"
    ]
    told = made.arm("filtered").about["sources"]["web"]
    assert told["documents"] == len(web)
    assert told["bytes"] == sum(len(row["text"].encode()) for row in web)
    chosen = np.flatnonzero(kept & ~held_out & made.filterable)
    assert told["targets"] == sum(len(made.tokens(i)) + 1 for i in chosen)


def test_equal_texts_are_held_out_together(tmp_path):
    rows = documents(60)
    twins = [row | {"id": "twin-" + row["id"], "source": "forum"} for row in rows]
    corpus = make_corpus(tmp_path, [rows, twins])
    assert corpus.held_out[:60].tolist() == corpus.held_out[60:].tolist()
    assert corpus.held_out.any()


def test_the_same_bytes_for_any_number_of_workers(made, tmp_path):
    source = Path(made.folder).parent / "scored"
    prepare(settings(source, tmp_path / "two", workers=2))
    prepare(settings(source, tmp_path / "eight", workers=8))
    assert digests(made.folder) == digests(tmp_path / "two") == digests(tmp_path / "eight")


def test_parquet_shards_make_the_same_corpus(made, tmp_path):
    source = write_scored(tmp_path / "scored", SHARDS, form="parquet")
    other = prepare(settings(source, tmp_path / "corpus"))
    assert len(other) == len(made)
    assert all(np.array_equal(other.tokens(i), made.tokens(i)) for i in range(len(made)))
    assert other.held_out.tolist() == made.held_out.tolist()


def test_an_interrupted_run_goes_on_and_ends_in_the_same_bytes(made, folders):
    source, output = folders
    whole = digests(output)
    names = [shard["name"] for shard in made.manifest["shards"]]
    shutil.rmtree(output / "arms")
    (output / "manifest.json").unlink()
    (output / "begun.json").write_text(json.dumps({"key": made.manifest["key"]}))
    (output / "shards" / names[1]).unlink()
    (output / "shards" / ".tmp-abc-x.arrow").write_bytes(b"half a file")
    done = (output / "shards" / names[0]).stat().st_mtime_ns
    prepare(settings(source, output))
    assert digests(output) == whole
    assert (output / "shards" / names[0]).stat().st_mtime_ns == done


def test_a_finished_run_is_left_alone(folders):
    source, output = folders
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*")}
    prepare(settings(source, output))
    assert {p: p.stat().st_mtime_ns for p in output.rglob("*")} == before


@pytest.mark.parametrize("change", [{"vocabulary": 301}, {"held_out": 0.1}, {"boundary": "<end>"}])
def test_other_settings_are_refused(folders, change):
    with pytest.raises(ValueError, match="other scored shards or settings"):
        prepare(settings(*folders, **change))


def test_a_shard_whose_text_is_no_text_is_named(folders, tmp_path):
    """Where the tokenizer is trained, before shards are held against their checksums."""
    source, _ = folders
    shard = sorted((source / "shards").iterdir())[0]
    shard.write_bytes(shard.read_bytes().replace(b"winnow", b"\xbcinnow"))
    with pytest.raises(ValueError, match=f"{shard} is missing or has changed since"):
        prepare(settings(source, tmp_path / "new"))


def test_a_changed_scored_folder_is_refused(folders, tmp_path):
    source, output = folders
    shard = next((source / "shards").iterdir())
    flip_a_bit(shard)
    with pytest.raises(ValueError, match="changed since the pipeline wrote it"):
        prepare(settings(source, tmp_path / "new"))
    assert not (tmp_path / "new" / "manifest.json").exists()
    manifest = json.loads((source / "manifest.json").read_text())
    (source / "manifest.json").write_text(json.dumps(manifest | {"key": "another"}))
    with pytest.raises(ValueError, match="other scored shards or settings"):
        prepare(settings(source, output))
    with pytest.raises(ValueError, match="the beginning of another corpus"):
        prepare(settings(source, tmp_path / "new"))


def test_a_changed_corpus_is_refused(folders):
    _, output = folders
    corpus = open_corpus(str(output))
    shard = output / "shards" / corpus.manifest["shards"][0]["name"]
    flip_a_bit(shard)
    with pytest.raises(ValueError, match="has changed since it was made"):
        open_corpus(str(output)).verify()
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match="has changed since it was made"):
        open_corpus(str(output))
    with open(output / "tokenizer.json", "a") as file:
        file.write(" ")
    with pytest.raises(ValueError, match=r"tokenizer\.json .* has changed"):
        open_corpus(str(output))
    (output / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"make the corpus with model/prepare\.py"):
        open_corpus(str(output))


def test_arms_are_written_once_and_checked(folders):
    corpus = open_corpus(str(folders[1]))
    mask = corpus.pool & (corpus.column("quality_score") > 0.5)
    made = write_arm(corpus, "threshold=0.5", mask, {"rule": "threshold", "threshold": 0.5})
    assert open_corpus(str(folders[1])).arm("threshold=0.5").fingerprint == made.fingerprint
    assert corpus.arms() == ["filtered", "threshold=0.5", "unfiltered"]
    write_arm(corpus, "threshold=0.5", mask, {"rule": "threshold", "threshold": 0.5})
    for name, chosen, said in (
        ("threshold=0.5", corpus.pool, "has another arm"),
        ("empty", corpus.pool & False, "would hold no documents"),
        ("leak", corpus.held_out, "held out"),
        ("short", mask[:-1], "one bool for each"),
        ("../x", mask, "arm name"),
    ):
        with pytest.raises(ValueError, match=said):
            write_arm(corpus, name, chosen, {})
    with pytest.raises(ValueError, match="no arm 'none'"):
        corpus.arm("none")
    np.save(folders[1] / "arms" / "filtered.npy", corpus.pool)
    with pytest.raises(ValueError, match="does not belong to the corpus"):
        corpus.arm("filtered")


def test_damaged_arms_and_manifests_are_named(folders):
    corpus = open_corpus(str(folders[1]))
    mask, about = (folders[1] / "arms" / f"filtered.{kind}" for kind in ("npy", "json"))
    whole = mask.read_bytes()
    for damaged in (whole[:50], whole[:-3], b""):
        mask.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"arm 'filtered' is damaged.*write the arm again"):
            corpus.arm("filtered")
    mask.unlink()
    with pytest.raises(ValueError, match="arm 'filtered' is damaged"):
        corpus.arm("filtered")
    mask.write_bytes(whole)
    about.write_text("{")
    with pytest.raises(ValueError, match=r"arms/filtered\.json is damaged"):
        corpus.arm("filtered")
    (folders[1] / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="has format None, this code reads"):
        open_corpus(str(folders[1]))


def test_processes_share_the_check_of_a_corpus(folders):
    corpus = open_corpus(str(folders[1]))
    shard = folders[1] / "shards" / corpus.manifest["shards"][1]["name"]
    shard.write_bytes(shard.read_bytes()[::-1])
    corpus.verify(0, 2)
    with pytest.raises(ValueError, match="has changed since it was made"):
        corpus.verify(1, 2)


def test_a_filter_that_keeps_nothing_is_an_error(tmp_path):
    rows = [row | {"kept": False, "drop_reason": "quality"} for row in documents(20)]
    with pytest.raises(ValueError, match="arm 'filtered' would hold no documents"):
        make_corpus(tmp_path, [rows])


def test_without_dropped_documents_there_is_no_unfiltered_arm(tmp_path):
    source = write_scored(tmp_path / "scored", [documents(30)], write="kept")
    assert prepare(settings(source, tmp_path / "corpus")).arms() == ["filtered"]


def test_unfinished_scored_folders_and_strange_outputs_are_refused(made, tmp_path):
    with pytest.raises(ValueError, match=r"has no manifest\.json"):
        prepare(settings(tmp_path, tmp_path / "out"))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        prepare(settings(Path(made.folder).parent / "scored", tmp_path))
    with pytest.raises(ValueError, match="held_out must lie"):
        prepare(settings(tmp_path, tmp_path / "out", held_out=1.0))


def test_the_tokenizer_sample_ignores_the_keep_decision(tmp_path):
    rows = documents(400)
    flipped = [
        row | {"kept": not row["kept"], "drop_reason": "quality" if row["kept"] else None}
        if row["source"] == "web" and row["drop_reason"] != "language"
        else row
        for row in rows
    ]
    samples = []
    for name, version in [("a", rows), ("b", flipped)]:
        source = scored.open_scored(str(write_scored(tmp_path / name, [version])))
        samples.append(list(sample_texts(source, 0.1, 10_000)))
    assert samples[0] == samples[1]
    reached = [row for row in rows if row["drop_reason"] in (None, "quality")]
    assert set(samples[0]) <= {row["text"] for row in reached if place(row) >= 0.1}
    size = sum(len(text.encode()) for text in samples[0])
    assert 0.7 < size / (0.9 * 10_000) < 1.3


def test_slices_of_batches_are_read_at_their_place():
    batch = to_batch(documents(30))
    part = batch.slice(11, 13)
    assert scored.hash_position(part).tolist() == scored.hash_position(batch)[11:24].tolist()
    expected = [place(row) for row in documents(30)[11:24]]
    assert np.allclose(scored.hash_position(part), expected, rtol=0, atol=2**-52)


def test_other_readers_can_open_a_token_shard(made):
    path = Path(made.folder) / "shards" / made.manifest["shards"][0]["name"]
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
        assert table["tokens"].type == pa.large_list(pa.uint16())
        assert table["tokens"][3].as_py() == made.tokens(3).tolist()
        assert table["id"].to_pylist() == [row["id"] for row in SHARDS[0]]


def test_a_given_tokenizer_is_used_as_it_is(made, tmp_path, capsys):
    source = Path(made.folder).parent / "scored"
    corpus = prepare(settings(source, tmp_path / "given", file=made.tokenizer_path))
    copied = (tmp_path / "given" / "tokenizer.json").read_bytes()
    assert copied == Path(made.tokenizer_path).read_bytes()
    assert corpus.fingerprint == made.fingerprint
    assert corpus.manifest["tokenizer"]["lossless"]
    lossy = Tokenizer.from_file(made.tokenizer_path)
    lossy.normalizer = normalizers.Lowercase()
    lossy.save(str(tmp_path / "lossy.json"))
    upper = [row | {"text": row["text"].upper()} for row in documents(30)]
    source = write_scored(tmp_path / "upper", [upper])
    told = settings(source, tmp_path / "lossy", file=str(tmp_path / "lossy.json"))
    corpus = prepare(told)
    assert not corpus.manifest["tokenizer"]["lossless"]
    before, after = corpus.manifest["tokenizer"]["change"]
    assert before.lower() == after != before
    capsys.readouterr()
    prepare_and_tell(told)
    assert f"({before!r} becomes {after!r})" in capsys.readouterr().err
    # What is wrong with it is said before anything is written.
    other = tmp_path / "other"
    with pytest.raises(ValueError, match="there is no tokenizer"):
        prepare(settings(source, other, file=str(tmp_path / "none.json")))
    with pytest.raises(ValueError, match=r"has no token '<s>' .* \"tokenizer\.boundary='<eos>'\""):
        prepare(settings(source, other, file=made.tokenizer_path, boundary="<s>"))
    with pytest.raises(ValueError, match="must be 257 or more"):
        prepare(settings(source, other, vocabulary=100))
    assert not other.exists()


def test_the_command_line(quick_python, made, tmp_path):
    source = Path(made.folder).parent / "scored"
    command = [quick_python, "model/prepare.py", f"scored={source}"]
    root = Path(__file__).parents[2]

    def run(*overrides):
        return subprocess.run([*command, *overrides], cwd=root, capture_output=True, text=True)

    output = f"output={tmp_path / 'corpus'}"
    done = run(output, "tokenizer.vocabulary=300", "held_out=0.2", "workers=1")
    assert done.returncode == 0, done.stderr
    assert "unfiltered" in done.stdout
    assert open_corpus(str(tmp_path / "corpus")).manifest["held_out"] == 0.2
    again = run(output)
    assert again.returncode == 1
    assert again.stderr.startswith("model/prepare.py: error: ")
    assert "choose another" in again.stderr
    assert run(output, "vocabulary=3").returncode == 2
