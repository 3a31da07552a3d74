"""An exported model gives the same logits, to us and to transformers, and the same tokens."""

import json
import os
import shutil

import pytest
import torch
from safetensors import safe_open
from training_runs import corpus_folder, train

from model import files, trained
from model.export import ExportConfig, export
from model.generate import generate

transformers = pytest.importorskip("transformers")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    corpus = corpus_folder(folder)
    train(corpus, folder / "run", "train.tokens=256", "evaluate.every=0")
    export(ExportConfig(str(folder / "run"), str(folder / "exported")))
    return folder / "run", folder / "exported"


@pytest.fixture(scope="module")
def ours(folders):
    return trained.load(str(folders[0]), CPU, torch.float32)


@pytest.fixture(scope="module")
def theirs(folders, tmp_path_factory):
    os.environ["HF_MODULES_CACHE"] = str(tmp_path_factory.mktemp("modules"))
    transformers.dynamic_module_utils.HF_MODULES_CACHE = os.environ["HF_MODULES_CACHE"]
    return transformers.AutoModelForCausalLM.from_pretrained(
        folders[1], trust_remote_code=True, local_files_only=True
    ).eval()


def tokens(rows, length):
    return torch.randint(0, 300, (rows, length), generator=torch.Generator().manual_seed(0))


def test_transformers_gives_the_same_logits(ours, theirs):
    with torch.no_grad():
        assert torch.equal(theirs(tokens(2, 12)).logits, ours.model(tokens(2, 12)))


def test_padding_moves_nothing(theirs):
    with torch.no_grad():
        alone = theirs(tokens(1, 8)).logits
        padded = torch.cat([torch.zeros(1, 3, dtype=torch.int64), tokens(1, 8)], 1)
        mask = torch.tensor([[0] * 3 + [1] * 8])
        both = theirs(padded, attention_mask=mask).logits[:, 3:]
    torch.testing.assert_close(both, alone, rtol=1e-5, atol=1e-5)


def test_the_loss_is_the_cross_entropy_of_the_next_token(theirs):
    ids = tokens(2, 9)
    with torch.no_grad():
        out = theirs(ids, labels=ids)
        nats = -out.logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])
    assert float(out.loss) == pytest.approx(float(nats.mean()), rel=1e-5)


def test_transformers_generates_the_same_tokens(ours, theirs):
    prompt = tokens(1, 5)
    expected = list(generate(ours.model, prompt[0].tolist(), 10))
    out = theirs.generate(prompt, max_new_tokens=10, do_sample=False, eos_token_id=-1)
    assert out[0, 5:].tolist() == expected


def test_transformers_reads_the_tokenizer(ours, folders):
    theirs = transformers.AutoTokenizer.from_pretrained(folders[1], local_files_only=True)
    text = "winnow über 漢字 <eos> "
    assert theirs.eos_token_id == ours.codec.boundary_id
    plain = "winnow über 漢字 "
    assert theirs(plain)["input_ids"] == ours.codec.encode([plain])[0].tolist()
    assert ours.codec.decode(ours.codec.encode([text])[0].tolist()) == text


def test_we_read_it_back(ours, folders):
    back = trained.load(str(folders[1]), CPU, torch.float32)
    assert back.model.config == ours.model.config
    assert back.sequence_length == ours.sequence_length
    for (name, a), (_, b) in zip(
        ours.model.state_dict().items(), back.model.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


def test_others_read_the_weights(folders):
    with safe_open(folders[1] / "model.safetensors", "pt") as file:
        assert file.get_tensor("glam.embedding.weight").shape == (300, 16)
    about = json.loads((folders[1] / "config.json").read_text())
    assert about["glam"]["experts"] == 4


def test_a_full_folder_and_an_unfinished_export_are_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="is not empty"):
        export(ExportConfig(str(folders[0]), str(folders[1])))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="no finished export"):
        trained.load(str(tmp_path), CPU, torch.float32)


def test_a_failed_export_leaves_nothing(folders, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(files, "write_json", full)
        with pytest.raises(OSError, match="No space left"):
            export(ExportConfig(str(folders[0]), str(tmp_path / "new")))
    assert not (tmp_path / "new").exists()
    export(ExportConfig(str(folders[0]), str(tmp_path / "new")))


def test_a_damaged_export_is_refused(folders, tmp_path):
    def refused(said):
        with pytest.raises(ValueError, match=said):
            trained.load(str(tmp_path / "exported"), CPU, torch.float32)

    shutil.copytree(folders[1], tmp_path / "exported")
    weights = tmp_path / "exported" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1000])
    refused("is damaged .* export it again")
    weights.write_bytes(whole)
    (tmp_path / "exported" / "tokenizer.json").unlink()
    refused("has no tokenizer.json: copy")
    (tmp_path / "exported" / "config.json").write_text("{")
    refused("config.json is damaged")
