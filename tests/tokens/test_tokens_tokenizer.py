"""The tokenizer: lossless, repeatable, and blind to text that spells a special token."""

import itertools
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from model.data import tokenizer

TEXTS = [f"grain {i} and chaff, wind over the field {i % 7}\n漢字 über" for i in range(200)]


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(tokenizer.train(TEXTS, 400, "<eos>"))
    return tokenizer.load(str(path), "<eos>")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
@settings(max_examples=120, deadline=None)
def test_any_unicode_text_survives(codec, texts):
    tokens, offsets = codec.encode(texts)
    pieces = [tokens[a:b] for a, b in itertools.pairwise(offsets)]
    assert [codec.decode(piece) for piece in pieces] == texts
    assert codec.boundary_id not in tokens
    assert (tokens < codec.vocabulary).all()


def test_an_example_of_what_a_tokenizer_changes_is_named(codec, tmp_path):
    assert codec.first_change(TEXTS) is None
    foreign = Tokenizer.from_str(codec.tokenizer.to_str())
    foreign.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    foreign.save(str(tmp_path / "prefix.json"))
    prefixing = tokenizer.load(str(tmp_path / "prefix.json"), "<eos>")
    assert prefixing.first_change([" grain", "grain and chaff"]) == (
        "grain and chaff",
        " grain and chaff"[:16],
    )
    foreign.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    foreign.normalizer = normalizers.Lowercase()
    foreign.save(str(tmp_path / "lower.json"))
    lowering = tokenizer.load(str(tmp_path / "lower.json"), "<eos>")
    text = "a" * 50 + "B" + "c" * 50
    assert lowering.first_change(["a", text]) == (text[34:66], text.lower()[34:66])


@given(st.text("<eos> \n", max_size=30))
@settings(deadline=None)
def test_spelling_the_boundary_does_not_make_one(codec, text):
    tokens, _ = codec.encode(["<eos>" + text, "a<eos>b"])
    assert codec.boundary_id not in tokens


def test_a_batch_is_encoded_like_its_documents(codec):
    tokens, offsets = codec.encode(TEXTS[:20])
    for i, text in enumerate(TEXTS[:20]):
        alone, _ = codec.encode([text])
        assert tokens[offsets[i] : offsets[i + 1]].tolist() == alone.tolist()


def test_the_same_texts_train_the_same_file_in_another_process():
    code = (
        f"from model.data import tokenizer; TEXTS = {TEXTS!r};"
        "import sys; sys.stdout.write(tokenizer.train(TEXTS, 400, '<eos>'))"
    )
    run = [sys.executable, "-c", code]
    outputs = [subprocess.run(run, capture_output=True, check=True).stdout for _ in range(2)]
    assert outputs[0] == outputs[1] == tokenizer.train(TEXTS, 400, "<eos>").encode()


def test_a_vocabulary_without_room_for_all_bytes_is_refused():
    with pytest.raises(ValueError, match="257 or more"):
        tokenizer.train(TEXTS, 256, "<eos>")
    assert len(Tokenizer.from_str(tokenizer.train(TEXTS, 257, "<eos>")).get_vocab()) == 257


def test_ids_take_two_bytes_up_to_65536_tokens(tmp_path):
    for size, itemsize in [(1 << 16, 2), ((1 << 16) + 1, 4)]:
        made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        made.save(str(tmp_path / "large.json"))
        codec = tokenizer.load(str(tmp_path / "large.json"), "w0")
        tokens, _ = codec.encode([f"w{size - 1}"])
        assert tokens.tolist() == [size - 1]
        assert tokens.itemsize == itemsize


def test_a_foreign_file_may_not_clip_pad_or_frame_documents(tmp_path, codec):
    from tokenizers.processors import TemplateProcessing

    foreign = Tokenizer.from_str(codec.tokenizer.to_str())
    foreign.enable_truncation(3)
    foreign.enable_padding(length=50)
    foreign.post_processor = TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", 0)])
    foreign.save(str(tmp_path / "foreign.json"))
    loaded = tokenizer.load(str(tmp_path / "foreign.json"), "<eos>")
    assert loaded.encode(TEXTS)[0].tolist() == codec.encode(TEXTS)[0].tolist()


def test_bad_files_are_explained(tmp_path, codec):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ValueError, match="there is no tokenizer"):
        tokenizer.load(str(path), "<eos>")
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"not a Hugging Face tokenizer\.json"):
        tokenizer.load(str(path), "<eos>")
    path.write_text(codec.tokenizer.to_str())
    with pytest.raises(ValueError, match=r"no token '</s>'.*<eos>"):
        tokenizer.load(str(path), "</s>")
    assert tokenizer.load(str(path), "a").fingerprint != tokenizer.load(str(path), "b").fingerprint
