"""Generation: the cache changes nothing, draws follow the probabilities, text comes out whole."""

import os
import shutil
import subprocess
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from foreign_tokenizers import FORMS
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from training_runs import corpus_folder, train

from model.generate import literal
from model.generation import GenerateConfig, choose, generate, generate_text
from model.glam.config import GLaMConfig
from model.glam.transformer import GLaM
from model.training.checkpoints import trained
from model.training.train_config import Precision

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    corpus = corpus_folder(folder)
    train(corpus, folder / "run", "train.tokens=256", "evaluate.every=0")
    return folder / "run"


@pytest.fixture(scope="module")
def model():
    config = GLaMConfig(
        vocabulary=50, layers=4, width=32, hidden=64, heads=2, head_width=16, experts=8
    )
    return GLaM(config, seed=1).eval()


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 2.0, "top_k": 5}])
@pytest.mark.parametrize("prompt", [[0], [0, 7, 7, 3, 49, 1]])
def test_the_cache_changes_no_token(model, prompt, options):
    settings = {"temperature": 0.0, "top_k": None, **options}
    random = torch.Generator().manual_seed(3)
    seen = list(prompt)
    with torch.no_grad():
        for _ in range(40):
            logits = model(torch.tensor([seen]))[0, -1]
            seen.append(choose(logits, generator=random, **settings))
    assert list(generate(model, prompt, 40, **options, seed=3)) == seen[len(prompt) :]


def test_the_prompt_is_left_alone(model):
    prompt = [0, 5]
    list(generate(model, prompt, 3))
    assert prompt == [0, 5]


def test_draws_depend_on_the_seed_alone(model):
    first, again, other = (
        list(generate(model, [0], 30, temperature=1.5, seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_draws_follow_the_probabilities():
    logits = torch.tensor([1.0, 3.0, 2.0, -1.0])
    random = torch.Generator().manual_seed(0)
    draws = [choose(logits, 2.0, 3, random) for _ in range(4000)]
    expected = np.exp(np.array([1.0, 3.0, 2.0, -np.inf]) / 2)
    expected /= expected.sum()
    counts = np.bincount(draws, minlength=4) / 4000
    assert counts[3] == 0
    np.testing.assert_allclose(counts, expected, atol=4 * np.sqrt(0.25 / 4000))
    assert choose(logits, 0.0, None, random) == 1
    assert choose(logits, 5.0, 1, random) == 1


def told(run, **changes):
    base = {
        "checkpoint": str(run),
        "prompt": "winnow grain",
        "tokens": 20,
        "temperature": 1.0,
        "top_k": None,
        "seed": 0,
        "device": "cpu",
        "precision": Precision.fp32,
    }
    return GenerateConfig(**(base | changes))


def test_text_is_what_the_tokens_decode_to(run):
    """In pieces that never cut a character: random bytes of many are drawn here."""
    loaded = trained.load(str(run), CPU, torch.float32)
    codec = loaded.codec
    for seed in range(5):
        config = told(run, temperature=8.0, tokens=60, seed=seed)
        prompt = [codec.boundary_id, *codec.encode([config.prompt])[0].tolist()]
        tokens = []
        for token in generate(loaded.model, prompt, 60, temperature=8.0, seed=seed):
            if token == codec.boundary_id:
                break
            tokens.append(token)
        assert "".join(generate_text(config)) == codec.decode(tokens)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prompt", ["", "winnow", "winnow grain"])
def test_text_goes_on_where_the_prompt_ends(run, tmp_path, monkeypatch, form, prompt):
    """With the space between: of a model that says this text, whatever the decoder does."""
    whole = "winnow grain fell, naïve wind 漢字 of"
    tokenizer = form()
    ids = tokenizer.encode(whole, add_special_tokens=False).ids
    begun = tokenizer.encode(prompt, add_special_tokens=False).ids
    assert ids[: len(begun)] == begun
    shutil.copytree(run, tmp_path / "run")
    tokenizer.save(str(tmp_path / "run" / "tokenizer.json"))
    monkeypatch.setattr("model.generation.generate", lambda *_, **__: iter(ids[len(begun) :]))
    pieces = list(generate_text(told(tmp_path / "run", prompt=prompt)))
    assert prompt + "".join(pieces) == whole
    assert not any("\ufffd" in piece for piece in pieces)
    assert len(pieces) > 5


def test_the_command(quick_python, run, tmp_path):
    command = [quick_python, ROOT / "model" / "generate.py", f"checkpoint={run}"]
    prompt = "winnow, it's ${grain}"
    command += [f"prompt={prompt}", "tokens=5", "device=cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    config = told(run, prompt=prompt, tokens=5, temperature=0.0)
    assert out.stdout == prompt + "".join(generate_text(config)) + "\n"
    assert os.listdir(tmp_path) == []


GRAMMAR = st.sampled_from("\\'\"${}, =()[]:%#\n\tab")


@given(st.text(GRAMMAR | st.characters(exclude_categories=["Cs"]), max_size=12))
@settings(max_examples=30, deadline=None)
def test_a_prompt_is_taken_as_it_stands(text):
    with hydra.initialize("../../conf", version_base="1.3"):
        config = hydra.compose("generate", [literal(f"prompt={text}"), "checkpoint=x"])
    assert OmegaConf.to_object(config).prompt == text


def test_nothing_is_printed_of_a_model_that_is_not_there(tmp_path):
    """It is loaded when the text is asked for, not when the first piece of it is."""
    with pytest.raises(ValueError, match="holds no checkpoint"):
        generate_text(told(tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokens": 0}, "tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
    ],
)
def test_impossible_settings_are_refused(run, change, said):
    with pytest.raises(ValueError, match=said):
        told(run, **change)


def test_the_model_is_the_one_that_was_trained(run):
    loaded = trained.load(str(run), CPU, torch.float32)
    saved = OmegaConf.load(run / "config.yaml").model
    assert loaded.model.config == GLaMConfig(**saved)
    assert loaded.sequence_length == 16
    assert not loaded.model.training
