"""Small tokenizers in the forms of others: ``<eos>`` the boundary, 300 tokens at most."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokens_scored import WORDS

TEXTS = [" ".join(WORDS), " ".join(reversed(WORDS))] * 3


def unigram():
    """SentencePiece's form: a space before the first word, which decoding takes off again."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=100, special_tokens=["<eos>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def byte_fallback():
    """Llama's form: the same, and what is no token is its bytes."""
    rest = ["\u2581", *"abcdefghijklmnopqrstuvwxyz,."]
    names = ["<eos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *rest]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.add_special_tokens(["<eos>"])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def byte_level(add_prefix_space=False):
    """GPT-2's form."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


FORMS = [unigram, byte_fallback, byte_level]
