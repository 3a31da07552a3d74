"""Counts tokens with the user's tokenizer, for the shards' column ``tokens``.

``--target-unit tokens`` uses them. White-space words, its fallback, are few in Chinese, Japanese
and Thai.
"""

import functools
import os
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.output.schema import TOKENS
from winnow.filesystem import storage, tables


@functools.lru_cache(maxsize=2)
def load(path: str) -> Any:
    """A Hugging Face ``tokenizer.json``, without its truncation and padding.

    Raises:
        ValueError: the file is something else, or the package ``tokenizers`` is missing.
        OSError: it can't be read.
    """
    # Workers are parallel already, and its threads would not survive a fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ValueError("--tokenizer needs the extra model: pip install -e '.[model]'") from error
    content = storage.read_bytes(path)
    try:
        tokenizer = Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises Exception itself
        raise ValueError(f"--tokenizer {path} is not a tokenizer.json: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def counted(batch: pa.RecordBatch, path: str) -> pa.RecordBatch:
    """The batch with the number of tokens of each text, special ones excluded, in ``tokens``."""
    found = load(path).encode_batch_fast(batch["text"].to_pylist(), add_special_tokens=False)
    counts = np.fromiter(map(len, found), np.int64, count=len(batch))
    return tables.replaced(batch, **{TOKENS: counts})
