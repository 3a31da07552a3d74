"""Text to token ids: a byte-level BPE trained on the corpus, or any Hugging Face tokenizer.json.

The only special token is the boundary, which precedes each document and is predicted after its last
token. Text that spells the boundary's name is tokenised as ordinary text.
"""

import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from winnow.filesystem import files, storage

SMALLEST = 257
"""The smallest vocabulary: 256 bytes and the boundary."""

TokenArray = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class TextCodec:
    """A loaded tokenizer. ``fingerprint`` covers its file and the choice of boundary."""

    tokenizer: Tokenizer
    boundary: str
    boundary_id: int
    vocabulary: int
    fingerprint: str

    @property
    def dtype(self) -> type[np.uint16] | type[np.uint32]:
        """The smallest dtype that holds every id."""
        return np.uint16 if self.vocabulary <= 1 << 16 else np.uint32

    def encode(self, texts: Sequence[str]) -> tuple[TokenArray, npt.NDArray[np.int64]]:
        """Concatenated tokens of n texts, without boundaries, and offsets (int64 [n + 1])."""
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(encoding) for encoding in encodings], out=offsets[1:])
        ids = itertools.chain.from_iterable(encoding.ids for encoding in encodings)
        return np.fromiter(ids, self.dtype, count=int(offsets[-1])), offsets

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of the tokens; invalid UTF-8 becomes U+FFFD."""
        return self.tokenizer.decode(list(tokens), skip_special_tokens=False)

    def first_change(self, texts: Sequence[str]) -> tuple[str, str] | None:
        """Excerpts around the first difference of a text and its round trip; None if all match."""
        tokens, offsets = self.encode(texts)
        for text, (start, stop) in zip(texts, itertools.pairwise(offsets), strict=True):
            decoded = self.decode(tokens[start:stop].tolist())
            if decoded != text:
                pairs = enumerate(zip(text, decoded, strict=False))
                common = next((i for i, (a, b) in pairs if a != b), min(len(text), len(decoded)))
                around = slice(max(0, common - 16), common + 16)
                return text[around], decoded[around]
        return None


def train(texts: Iterable[str], vocabulary: int, boundary: str) -> str:
    """Train byte-level BPE (GPT-2's pre-tokenisation) and return its tokenizer.json.

    Every byte is a token, so any text survives the round trip. Training is deterministic. A small
    sample may give fewer tokens than ``vocabulary``, which must be :data:`SMALLEST` or more.
    """
    check_vocabulary(vocabulary)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[boundary],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str(pretty=True)


def check_vocabulary(vocabulary: int) -> None:
    """Raise ValueError for a vocabulary too small for :func:`train`."""
    if vocabulary < SMALLEST:
        raise ValueError(f"tokenizer.vocabulary must be {SMALLEST} or more, not {vocabulary}")


def load(path: str, boundary: str) -> TextCodec:
    """Load a tokenizer.json; raise ValueError if it is missing, invalid or lacks ``boundary``."""
    if not os.path.isfile(path):
        raise ValueError(f"there is no tokenizer {path}: give the path of a tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # the library raises bare Exception for any malformed file
        raise ValueError(f"{path} is not a Hugging Face tokenizer.json: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "<eos>" inside a document is five characters
    boundary_id = tokenizer.token_to_id(boundary)
    if boundary_id is None:
        special = [str(token) for token in tokenizer.get_added_tokens_decoder().values()]
        example = f"\"tokenizer.boundary='{(special or '…')[-1]}'\""
        raise ValueError(
            f"{path} has no token {boundary!r} to separate documents: name one of its special"
            f" tokens {special}, in both kinds of quotes: {example}"
        )
    return TextCodec(
        tokenizer=tokenizer,
        boundary=boundary,
        boundary_id=boundary_id,
        vocabulary=max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1,
        fingerprint=files.fingerprint(storage.checksum(path), boundary),
    )
