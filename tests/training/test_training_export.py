"""An exported model gives the same logits, tokens and text, to us and to transformers."""

import copy
import functools
import io
import json
import os
import shutil
import subprocess
import sys
import weakref

import pytest
import torch
from foreign_tokenizers import FORMS, byte_level
from safetensors import safe_open
from safetensors.torch import save
from tokenizers import Tokenizer, processors
from training_runs import corpus_folder, train

from model.exporting import ExportConfig, export, write_safetensors
from model.generation import GenerateConfig, generate, generate_text
from model.training.checkpoints import trained
from model.training.train_config import Precision
from winnow.filesystem import storage

pytestmark = pytest.mark.slow

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


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_moves_nothing(theirs, side):
    prompts = [tokens(1, length) for length in (8, 3, 5)]
    ids, mask = torch.full((3, 8), 7), torch.zeros(3, 8, dtype=torch.int64)
    places = [slice(8 - p.shape[1], 8) if side == "left" else slice(p.shape[1]) for p in prompts]
    for row, (prompt, place) in enumerate(zip(prompts, places, strict=True)):
        ids[row, place], mask[row, place] = prompt[0], 1
    with torch.no_grad():
        together = theirs(ids, attention_mask=mask).logits
        for row, (prompt, place) in enumerate(zip(prompts, places, strict=True)):
            alone = theirs(prompt).logits[0]
            torch.testing.assert_close(together[row, place], alone, rtol=1e-5, atol=1e-5)


def test_the_cache_moves_nothing(theirs):
    """Step by step, in rows padded on the left, and begun with no cache given."""
    ids, mask = tokens(2, 9), torch.ones(2, 9, dtype=torch.int64)
    mask[1, :3] = 0
    past, steps = None, []
    with torch.no_grad():
        whole = theirs(ids, attention_mask=mask)
        for a, b in [(0, 4), (4, 5), (5, 9)]:
            out = theirs(
                ids[:, a:b], attention_mask=mask[:, :b], past_key_values=past, use_cache=True
            )
            past, steps = out.past_key_values, [*steps, out.logits]
    assert whole.past_key_values is None
    assert past.get_seq_length() == 9
    torch.testing.assert_close(torch.cat(steps, 1), whole.logits, rtol=1e-5, atol=1e-5)


def test_a_mask_of_another_shape_is_refused(theirs):
    with pytest.raises(ValueError, match=r"must be \(2, 5\)"):
        theirs(tokens(2, 5), attention_mask=torch.ones(2, 4))
    with pytest.raises(ValueError, match="only dynamic ones"):
        theirs.generate(tokens(1, 4), max_new_tokens=3, cache_implementation="static")


def test_the_loss_is_the_cross_entropy_of_the_next_token(theirs):
    ids = tokens(2, 9)
    with torch.no_grad():
        out = theirs(ids, labels=ids)
        nats = -out.logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])
    assert float(out.loss) == pytest.approx(float(nats.mean()), rel=1e-5)


def test_transformers_generates_the_same_tokens(ours, theirs):
    prompt = tokens(1, 5)
    expected = list(generate(ours.model, prompt[0].tolist(), 10))
    for use_cache in (True, False):
        out = theirs.generate(
            prompt, max_new_tokens=10, do_sample=False, eos_token_id=-1, use_cache=use_cache
        )
        assert out[0, 5:].tolist() == expected


@pytest.mark.parametrize("beams", [1, 3])
def test_a_padded_batch_generates_what_each_prompt_does(folders, theirs, beams):
    tokenizer = their_tokenizer(folders[1])
    prompts = ["winnow grain", "über", "of the wind fell, far"]
    how = {"max_new_tokens": 8, "do_sample": False, "num_beams": beams}
    together = theirs.generate(**tokenizer(prompts, return_tensors="pt", padding=True), **how)
    for row, prompt in zip(together, prompts, strict=True):
        alone = theirs.generate(**tokenizer(prompt, return_tensors="pt"), use_cache=False, **how)
        texts = tokenizer.batch_decode([row, alone[0]], skip_special_tokens=True)
        assert texts[0] == texts[1]
        assert texts[0].startswith(prompt)


FRESH = """
import sys
from transformers import AutoTokenizer, pipeline
folder, prompt = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
write = pipeline("text-generation", model=folder, tokenizer=tokenizer, trust_remote_code=True)
print(write(prompt, max_new_tokens=12, do_sample=False)[0]["generated_text"])
"""


def test_a_fresh_process_writes_the_same_text(folders, tmp_path):
    """As users do it, with nothing to say about it."""
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [sys.executable, "-c", FRESH, folders[1], "winnow grain"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout == our_text(folders[0], "winnow grain") + "\n"
    assert "[transformers]" not in out.stderr


def our_text(run, prompt):
    """What ``model/generate.py`` prints."""
    told = GenerateConfig(str(run), prompt, 12, 0.0, None, 0, "cpu", Precision.fp32)
    return prompt + "".join(generate_text(told))


def their_tokenizer(folder):
    return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


PREFIXING = functools.partial(byte_level, add_prefix_space=True)


@pytest.mark.parametrize("form", [*FORMS, PREFIXING])
def test_text_is_ours_with_any_tokenizer(folders, theirs, tmp_path, form):
    """The export of a run with a tokenizer that adds, pads and truncates in a way of its own."""
    shutil.copytree(folders[0], tmp_path / "run")
    foreign = form()
    foreign.enable_truncation(3)
    foreign.enable_padding(length=4, pad_token="<eos>")
    foreign.post_processor = processors.TemplateProcessing(
        single="$A <eos> <eos>", special_tokens=[("<eos>", foreign.token_to_id("<eos>"))]
    )
    foreign.save(str(tmp_path / "run" / "tokenizer.json"))
    export(ExportConfig(str(tmp_path / "run"), str(tmp_path / "exported")))
    codec = trained.load(str(tmp_path / "exported"), CPU, torch.float32).codec
    tokenizer = their_tokenizer(tmp_path / "exported")
    for text in ("winnow grain", "of <eos> über", "", " two  spaces "):
        expected = [codec.boundary_id, *codec.encode([text])[0].tolist()]
        assert tokenizer(text)["input_ids"] == expected
    ids = tokenizer("winnow grain", return_tensors="pt")
    out = theirs.generate(**ids, max_new_tokens=12, do_sample=False)
    text = tokenizer.decode(out[0], skip_special_tokens=True)
    assert text.lstrip() == our_text(tmp_path / "run", "winnow grain")


def test_the_tokenizer_names_the_boundary(ours, folders):
    theirs = their_tokenizer(folders[1])
    ids = {theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id}
    assert ids == {ours.codec.boundary_id}
    plain = Tokenizer.from_file(str(folders[1] / "tokenizer.json"))
    text = "winnow über 漢字 "
    expected = [ours.codec.boundary_id, *ours.codec.encode([text])[0].tolist()]
    assert plain.encode(text).ids == theirs(text)["input_ids"] == expected


def test_the_embeddings_are_the_one_matrix(ours, theirs):
    ids = tokens(1, 6)
    matrix = ours.model.embedding.weight
    with torch.no_grad():
        assert torch.equal(theirs.get_input_embeddings()(ids), matrix[ids])
        hidden = ours.model.hidden(ids)[0]
        logits = theirs.get_output_embeddings()(hidden) * theirs.config.hidden_size**-0.5
        torch.testing.assert_close(logits, theirs(ids).logits)
    assert theirs.get_input_embeddings().weight is theirs.get_output_embeddings().weight


def test_the_embeddings_can_be_replaced_but_not_resized(theirs):
    other = copy.deepcopy(theirs)
    table = torch.nn.Embedding(300, 16)
    other.set_input_embeddings(table)
    assert other.get_input_embeddings().weight is table.weight
    assert not torch.equal(other(tokens(1, 3)).logits, theirs(tokens(1, 3)).logits)
    with pytest.raises(ValueError, match="shape"):
        other.set_input_embeddings(torch.nn.Embedding(301, 16))
    with pytest.raises(ValueError, match="300 tokens"):
        other.resize_token_embeddings(301)
    assert other.resize_token_embeddings(300).weight is table.weight


def test_transformers_saves_and_reads_it_again(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    again = type(theirs).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(tokens(2, 7)).logits, theirs(tokens(2, 7)).logits)


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


def test_no_tensor_outlives_its_turn():
    """And the file is safetensors' own, of shapes of every kind and any names."""
    torch.manual_seed(0)
    shapes = {"a": (), "b.é": (3, 5), 'c"': (0, 4), "d": (2, 3, 4)}
    values = {name: torch.randn(shape) for name, shape in shapes.items()}
    alive = []

    def read(name):
        assert [ref() for ref in alive] == [None] * len(alive)
        copied = values[name].clone()
        alive.append(weakref.ref(copied))
        return copied

    file = io.BytesIO()
    write_safetensors(file, shapes, read)
    assert file.getvalue() == save(values, metadata={"format": "pt"})
    assert len(alive) == 4
    with pytest.raises(ValueError, match=r"e is \[\] of float32, not \[3\]"):
        write_safetensors(io.BytesIO(), {"e": (3,)}, lambda _: values["a"])


def test_a_full_folder_and_an_unfinished_export_are_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="is not empty"):
        export(ExportConfig(str(folders[0]), str(folders[1])))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="not a finished export"):
        trained.load(str(tmp_path), CPU, torch.float32)


def test_an_export_by_several_processes_is_refused(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="without torchrun"):
        export(ExportConfig(str(folders[0]), str(tmp_path / "exported")))
    assert not (tmp_path / "exported").exists()


def test_a_failed_export_leaves_nothing(folders, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(storage, "write_json", full)
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
