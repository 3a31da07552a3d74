"""A training corpus: the tokens of a scored dataset, and arms that select its documents.

::

    CORPUS/
      manifest.json      written last: fingerprints, held-out share, shards with rows and checksums
      tokenizer.json
      shards/*.arrow     SHARD_SCHEMA, uncompressed Arrow IPC, row for row the scored shards
      arms/<name>.npy    bool per document in corpus order; int32 if it counts copies
      arms/<name>.json   the arm's definition and sizes, written last

Documents are numbered from 0 in corpus order: shards as the manifest lists them, rows in order.
The content hash decides which documents are held out, and no arm holds these. So exact copies never
straddle training and evaluation.
"""

import functools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.data import arms, scored
from model.data.arms import Arm, BoolArray, Choice
from winnow.filesystem import local_copies, storage
from winnow.filesystem.local_copies import RemoteFile

FORMAT = 2
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"

ID_HASH = "id_hash"
TOKENS = "tokens"

IntArray = npt.NDArray[np.int64]


def shard_schema(token_type: pa.DataType, copies: bool = False) -> pa.Schema:
    """The schema of ``shards/*.arrow``: one row per document, tokens without boundary.

    ``token_type`` is uint16 or uint32; ``copies`` adds the column of copies. ``id_hash``, the
    XXH3-64 of the id, keys the order of every stream. ``bytes`` counts the text's UTF-8 bytes.
    """
    return pa.schema(
        [
            pa.field(scored.ID, pa.string(), nullable=False),
            pa.field(ID_HASH, pa.uint64(), nullable=False),
            pa.field(scored.CONTENT_HASH, pa.binary(16), nullable=False),
            pa.field(scored.SOURCE, pa.string(), nullable=False),
            pa.field(scored.BYTES, pa.int64(), nullable=False),
            pa.field(TOKENS, pa.large_list(token_type), nullable=False),
            pa.field(scored.QUALITY_SCORE, pa.float32(), nullable=False),
            pa.field(scored.KEEP_DRAW, pa.float64(), nullable=False),
            pa.field(scored.KEPT, pa.bool_(), nullable=False),
            pa.field(scored.DROP_REASON, pa.string()),
            *([pa.field(scored.COPIES, pa.int32(), nullable=False)] if copies else []),
        ]
    )


class Corpus:
    """An open corpus: lazily read columns in corpus order, memory-mapped tokens.

    ``fingerprint`` covers tokens, split and tokenizer. ``local`` is the folder of the tokens and
    the tokenizer: a local copy if ``folder`` is in a bucket, else ``folder``.
    """

    def __init__(self, folder: str, manifest: Mapping[str, Any], local: str) -> None:
        self.folder = folder
        self._local = local
        self.manifest = manifest
        self.fingerprint: str = manifest["fingerprint"]
        self.vocabulary: int = manifest["tokenizer"]["vocabulary"]
        self.boundary_id: int = manifest["tokenizer"]["boundary_id"]
        self.sources: list[str] = sorted({n for s in manifest["shards"] for n in s["sources"]})
        self._batches = [
            batch for shard in manifest["shards"] for batch in _map_shard(local, shard)
        ]

    @property
    def tokenizer_path(self) -> str:
        return os.path.join(self._local, TOKENIZER)

    def __len__(self) -> int:
        return len(self.lengths)

    def column(self, name: str) -> npt.NDArray[Any]:
        """A fixed-width column over all documents: [documents]."""
        return np.concatenate([b[name].to_numpy(zero_copy_only=False) for b in self._batches])

    def ids(self, documents: IntArray) -> list[str]:
        place = np.searchsorted(self._first_row, documents, side="right") - 1
        rows = documents - self._first_row[place]
        pairs = zip(place.tolist(), rows.tolist(), strict=True)
        return [self._batches[p][scored.ID][r].as_py() for p, r in pairs]

    @functools.cached_property
    def lengths(self) -> IntArray:
        """Tokens per document, without boundary: int64 [documents]."""
        return np.concatenate([np.diff(_offsets(batch)) for batch in self._batches])

    @functools.cached_property
    def bytes(self) -> IntArray:
        """UTF-8 bytes of each document's text: int64 [documents]."""
        return self.column(scored.BYTES)

    @functools.cached_property
    def id_hash(self) -> npt.NDArray[np.uint64]:
        """XXH3-64 of each document's id: uint64 [documents]."""
        return self.column(ID_HASH)

    @functools.cached_property
    def source_index(self) -> npt.NDArray[np.int16]:
        """Each document's index into :attr:`sources`: int16 [documents]."""
        parts = []
        for batch in self._batches:
            encoded = batch[scored.SOURCE].dictionary_encode()
            names = np.array([self.sources.index(n) for n in encoded.dictionary.to_pylist()])
            parts.append(names.astype(np.int16)[encoded.indices.to_numpy()])
        return np.concatenate(parts)

    @functools.cached_property
    def filterable(self) -> BoolArray:
        """Documents of sources that the keep rule filters: bool [documents]."""
        return np.isin(self.sources, self.manifest["filtered_sources"])[self.source_index]

    @functools.cached_property
    def held_out(self) -> BoolArray:
        """Documents that no arm may hold: bool [documents]."""
        share = self.manifest["held_out"]
        return np.concatenate([scored.hash_position(batch) < share for batch in self._batches])

    @functools.cached_property
    def reached(self) -> BoolArray:
        """Documents that no step dropped before the keep decision: bool [documents]."""
        return np.concatenate([scored.reached_decision(batch) for batch in self._batches])

    @property
    def repeats(self) -> Choice:
        """The pipeline's decision: bool [documents], or int32 copies if the run used buckets."""
        has_copies = scored.COPIES in self._batches[0].schema.names
        return self.column(scored.COPIES if has_copies else scored.KEPT)

    @property
    def evaluated(self) -> BoolArray:
        """Documents to evaluate on, reached and held out: bool [documents]."""
        return self.reached & self.held_out

    @property
    def evaluated_sources(self) -> list[str]:
        """The sources with documents to evaluate on."""
        return [self.sources[i] for i in np.unique(self.source_index[self.evaluated])]

    @property
    def pool(self) -> BoolArray:
        """The raw pool that arms select from, reached and not held out: bool [documents]."""
        return self.reached & ~self.held_out

    def tokens(self, document: int) -> npt.NDArray[Any]:
        """One document's tokens, as a view of the mapped file."""
        chunk, start, end = self._spans([document])[0]
        return self._values[chunk][start:end]

    def copy_tokens(self, documents: IntArray, places: IntArray, out: IntArray) -> None:
        """Copy the tokens of n documents into ``out``, each at its place, clipped to ``out``.

        All arrays are int64. A negative place drops leading tokens.
        """
        values, size = self._values, len(out)
        for (chunk, start, end), place in zip(self._spans(documents), places.tolist(), strict=True):
            skip = -place if place < 0 else 0
            take = min(end - start, size - place)
            if take > skip:
                out[place + skip : place + take] = values[chunk][start + skip : start + take]

    def sum_by_source(self, documents: IntArray, values: IntArray) -> IntArray:
        """Sum a value per document by source: int64 [n] to [sources]."""
        out = np.zeros(len(self.sources), np.int64)
        np.add.at(out, self.source_index[documents], values)  # bincount's weights are float64
        return out

    def verify(self, rank: int = 0, world: int = 1) -> None:
        """Verify the checksums of this rank's shards; raise ValueError if one has changed."""
        for shard in self.manifest["shards"][rank::world]:
            if storage.checksum(_shard_path(self._local, shard["name"])) != shard["checksum"]:
                raise _changed(self.folder, shard["name"])

    def arm(self, name: str) -> Arm:
        """Load an arm; raise ValueError if it is missing or does not match this corpus."""
        return arms.load(self.folder, self.fingerprint, name)

    def arms(self) -> list[str]:
        return arms.names(self.folder)

    @functools.cached_property
    def _values(self) -> list[npt.NDArray[Any]]:
        return [batch[TOKENS].values.to_numpy() for batch in self._batches]

    @functools.cached_property
    def _first_row(self) -> IntArray:
        return np.cumsum([0, *(len(batch) for batch in self._batches[:-1])])

    @functools.cached_property
    def _starts(self) -> IntArray:
        """The offset of each document's tokens in its batch: int64 [documents]."""
        return np.concatenate([_offsets(batch)[:-1] for batch in self._batches])

    def _spans(self, documents: Any) -> list[tuple[int, int, int]]:
        """Each document's batch, and the start and end of its tokens there."""
        chunk = np.searchsorted(self._first_row, documents, side="right") - 1
        start = self._starts[documents]
        end = start + self.lengths[documents]
        return list(zip(chunk.tolist(), start.tolist(), end.tolist(), strict=True))


def open_corpus(folder: str) -> Corpus:
    """Open a finished corpus and check its file sizes (:meth:`Corpus.verify` checks all bytes).

    From a bucket, tokens and tokenizer are copied (:mod:`winnow.filesystem.local_copies`).

    Raises:
        ValueError: the corpus is unfinished or of another format, or a file has changed.
    """
    path = storage.join(folder, MANIFEST)
    if not storage.exists(path):
        raise ValueError(
            f"{folder} has no {MANIFEST}: make the corpus with model/prepare.py (an interrupted run"
            " resumes when run again)"
        )
    manifest = storage.read_json(path)
    if (form := manifest.get("format")) != FORMAT:
        raise ValueError(
            f"{path} has format {form}, this code reads {FORMAT}: make the corpus again with"
            " model/prepare.py"
        )
    local = folder
    if storage.scheme(folder) is not None:
        local = local_copies.folder(folder, wanted(folder, manifest))
    path = os.path.join(local, TOKENIZER)
    if not os.path.exists(path) or storage.checksum(path) != manifest["tokenizer"]["file"]:
        raise _changed(folder, TOKENIZER)
    return Corpus(folder, manifest, local)


def wanted(folder: str, manifest: Mapping[str, Any]) -> dict[str, RemoteFile]:
    """The files that a local copy of a corpus needs: tokens and tokenizer."""
    path = storage.join(folder, TOKENIZER)
    wanted = {TOKENIZER: RemoteFile(path, storage.size(path), manifest["tokenizer"]["file"])}
    for shard in manifest["shards"]:
        path = storage.join(folder, "shards", shard["name"])
        wanted[f"shards/{shard['name']}"] = RemoteFile(path, shard["size"], shard["checksum"])
    return wanted


def write_arm(
    corpus: Corpus,
    name: str,
    chosen: Choice,
    definition: Mapping[str, Any],
    controls: Mapping[str, Any] | None = None,
) -> Arm:
    """Add an arm to a corpus, or confirm that it exists with the same documents.

    ``chosen`` selects documents of ``corpus.pool`` (bool [documents]) or says how often an epoch
    reads each (int32). ``definition`` is JSON that says how the arm was made, such as ``{"rule":
    "pareto", "parameter": 9}``; ``controls`` are those of :mod:`model.data.controls`.

    Raises:
        ValueError: a bad name, an empty arm, documents outside the pool, or a different arm of
            that name.
    """
    if chosen.shape != (len(corpus),) or chosen.dtype not in (np.bool_, np.int32):
        raise ValueError(
            f"the mask of arm {name!r} is {chosen.dtype}{list(chosen.shape)}, expected one bool for"
            f" each of the corpus's {len(corpus)} documents"
        )
    mask = chosen > 0
    if not mask.any():
        raise ValueError(f"arm {name!r} would hold no documents: its rule is too strict")
    if (mask & ~corpus.pool).any():
        raise ValueError(
            f"arm {name!r} would hold documents that are held out or were dropped before the keep"
            " decision: take `mask & corpus.pool`"
        )
    content = {"definition": dict(definition), "sources": tally(corpus, chosen)}
    return arms.save(corpus.folder, corpus.fingerprint, name, chosen, content, controls)


def tally(corpus: Corpus, chosen: Choice) -> dict[str, dict[str, int]]:
    """Documents, targets (tokens plus one boundary each) and bytes per epoch, by source."""
    rows = np.flatnonzero(chosen)
    times = chosen[rows].astype(np.int64)
    sums = {
        "documents": corpus.sum_by_source(rows, times),
        "targets": corpus.sum_by_source(rows, times * (corpus.lengths[rows] + 1)),
        "bytes": corpus.sum_by_source(rows, times * corpus.bytes[rows]),
    }
    return {
        source: {name: int(values[i]) for name, values in sums.items()}
        for i, source in enumerate(corpus.sources)
    }


def _map_shard(folder: str, shard: Mapping[str, Any]) -> list[pa.RecordBatch]:
    path = _shard_path(folder, shard["name"])
    if not os.path.exists(path) or os.path.getsize(path) != shard["size"]:
        raise _changed(folder, shard["name"])
    try:
        reader = pa.ipc.open_file(pa.memory_map(path))
        return [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except (pa.ArrowInvalid, OSError) as error:
        raise _changed(folder, shard["name"]) from error


def _offsets(batch: pa.RecordBatch) -> IntArray:
    return batch[TOKENS].offsets.to_numpy()


def _shard_path(folder: str, name: str) -> str:
    return os.path.join(folder, "shards", name)


def _changed(folder: str, name: str) -> ValueError:
    return ValueError(
        f"{name} of the corpus {folder} is missing or has changed since it was made: delete the"
        " folder and run model/prepare.py again"
    )
