"""A training corpus: a scored folder as tokens, and the arms that choose among its documents.

::

    CORPUS/
      manifest.json      written last: fingerprints, held-out share, shards with rows and checksums
      tokenizer.json
      shards/*.arrow     SHARD_SCHEMA, uncompressed Arrow IPC, row for row the scored shards
      arms/<name>.npy    bool, one for each document in corpus order; int32 if it counts copies
      arms/<name>.json   what the arm is and holds, written last

Documents are numbered from 0 in corpus order: shards as the manifest lists them, rows in order.
Held-out ones are chosen by their content hash and belong to no arm, so neither a document nor an
exact copy of it is both trained on and evaluated.
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
    """A row of ``shards/*.arrow``: one document, its tokens without boundary, and its scores.

    ``token_type`` is uint16 or uint32; ``copies`` says whether the scored shards have them.
    ``id_hash`` is the XXH3-64 of the id: it keys the order of every stream. ``bytes`` counts the
    UTF-8 bytes of the text.
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
    """An opened corpus: per-document columns as arrays in corpus order, tokens memory-mapped.

    Columns are read when first asked for. ``fingerprint`` covers tokens, split and tokenizer.
    Tokens and tokenizer lie in ``local``; that is ``folder`` itself unless that is in a bucket.
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
        """Tokens of each document, without boundary: int64 [documents]."""
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
        """Which of :attr:`sources` each document belongs to: int16 [documents]."""
        parts = []
        for batch in self._batches:
            encoded = batch[scored.SOURCE].dictionary_encode()
            names = np.array([self.sources.index(n) for n in encoded.dictionary.to_pylist()])
            parts.append(names.astype(np.int16)[encoded.indices.to_numpy()])
        return np.concatenate(parts)

    @functools.cached_property
    def filterable(self) -> BoolArray:
        """Documents whose source the keep rule may drop from: bool [documents]."""
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
        """What the pipeline decided: bool [documents], or copies, int32, of a run with buckets."""
        has_copies = scored.COPIES in self._batches[0].schema.names
        return self.column(scored.COPIES if has_copies else scored.KEPT)

    @property
    def evaluated(self) -> BoolArray:
        """Documents for evaluation alone, reached and held out: bool [documents]."""
        return self.reached & self.held_out

    @property
    def evaluated_sources(self) -> list[str]:
        """The sources of which there is something to evaluate on."""
        return [self.sources[i] for i in np.unique(self.source_index[self.evaluated])]

    @property
    def pool(self) -> BoolArray:
        """The raw pool that arms choose from, reached and not held out: bool [documents]."""
        return self.reached & ~self.held_out

    def tokens(self, document: int) -> npt.NDArray[Any]:
        """One document's tokens, a view of the mapped file."""
        chunk, start, end = self._spans([document])[0]
        return self._values[chunk][start:end]

    def copy_tokens(self, documents: IntArray, places: IntArray, out: IntArray) -> None:
        """Copy the tokens of n documents to ``out`` from their places on, clipped to what fits.

        All are int64. A negative place leaves out leading tokens.
        """
        values, size = self._values, len(out)
        for (chunk, start, end), place in zip(self._spans(documents), places.tolist(), strict=True):
            skip = -place if place < 0 else 0
            take = min(end - start, size - place)
            if take > skip:
                out[place + skip : place + take] = values[chunk][start + skip : start + take]

    def sum_by_source(self, documents: IntArray, values: IntArray) -> IntArray:
        """The sums of a value of each of n documents: int64 [n] to [sources]."""
        out = np.zeros(len(self.sources), np.int64)
        np.add.at(out, self.source_index[documents], values)  # bincount's weights are float64
        return out

    def verify(self, rank: int = 0, world: int = 1) -> None:
        """Read every file and compare checksums; each of ``world`` processes a share of them.

        Raises:
            ValueError: one has changed since ``model/prepare.py`` wrote it.
        """
        for shard in self.manifest["shards"][rank::world]:
            if storage.checksum(_shard_path(self._local, shard["name"])) != shard["checksum"]:
                raise _changed(self.folder, shard["name"])

    def arm(self, name: str) -> Arm:
        """Load an arm.

        Raises:
            ValueError: there is none of that name, or its files do not fit this corpus.
        """
        return arms.load(self.folder, self.fingerprint, name)

    def arms(self) -> list[str]:
        return arms.names(self.folder)

    @functools.cached_property
    def _values(self) -> list[npt.NDArray[Any]]:
        return [batch[TOKENS].values.to_numpy() for batch in self._batches]

    @functools.cached_property
    def _first_row(self) -> IntArray:
        """The first document of each batch: int64 [batches]."""
        return np.cumsum([0, *(len(batch) for batch in self._batches[:-1])])

    @functools.cached_property
    def _starts(self) -> IntArray:
        """Where each document's tokens start among its batch's values: int64 [documents]."""
        return np.concatenate([_offsets(batch)[:-1] for batch in self._batches])

    def _spans(self, documents: Any) -> list[tuple[int, int, int]]:
        """The batch of each document, and the start and end of its tokens there."""
        chunk = np.searchsorted(self._first_row, documents, side="right") - 1
        start = self._starts[documents]
        end = start + self.lengths[documents]
        return list(zip(chunk.tolist(), start.tolist(), end.tolist(), strict=True))


def open_corpus(folder: str) -> Corpus:
    """Open a finished corpus, comparing the sizes of its files (:meth:`Corpus.verify`: all bytes).

    Tokens and tokenizer of one in a bucket are copied (:mod:`winnow.filesystem.local_copies`).

    Raises:
        ValueError: it is unfinished, of another format, or a file has changed.
    """
    path = storage.join(folder, MANIFEST)
    if not storage.exists(path):
        raise ValueError(
            f"{folder} has no {MANIFEST}: make the corpus with model/prepare.py (run it again if it"
            " was cut off: it goes on where it stopped)"
        )
    manifest = storage.read_json(path)
    if (form := manifest.get("format")) != FORMAT:
        raise ValueError(
            f"{path} has format {form}, this code reads {FORMAT}: make the corpus anew with"
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
    """What is copied of a corpus: tokens and tokenizer."""
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
    """Add an arm to a corpus; one of that name with these very documents may be there.

    ``chosen`` is bool [documents], a part of ``corpus.pool``, or how often each is read in an
    epoch, int32 [documents]. ``definition`` is JSON that says how it was made: ``{"rule": "pareto",
    "parameter": 9}``; ``controls`` are those of :mod:`model.data.controls`.

    Raises:
        ValueError: a bad name, an empty arm, held-out documents, or another arm of that name.
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
    """Documents, targets (tokens and one boundary each) and bytes of a choice, by source.

    A document counts as often as it is read in an epoch.
    """
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
