"""Encodes scored shards into token shards, in parallel processes.

Neither the number of workers nor resuming changes a byte. A token shard's Arrow metadata names its
scored shard and tokenizer; a file with the right metadata is complete.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from model.data import corpus, scored, tokenizer
from model.data.scored import ScoredShard
from model.data.tokenizer import TextCodec
from winnow.filesystem import files, storage, tables


def encode_shards(
    shards: Sequence[ScoredShard], folder: str, path: str, boundary: str, workers: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Encode shards into ``folder``; yield the index and manifest entry of each when done.

    ``path`` is a tokenizer.json, ``boundary`` the name of its boundary token. ``workers`` is the
    total number of threads, spread over at most one process per shard. Raises ValueError if a
    scored shard has changed, OSError if the disk is full or a process died.
    """
    processes = max(1, min(workers, len(shards)))
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_worker,
        initargs=(max(1, workers // processes),),
    )
    with pool:
        try:
            futures = {
                pool.submit(encode_shard, shard, folder, path, boundary): index
                for index, shard in enumerate(shards)
            }
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a worker process died (out of memory?): run the same command with fewer workers"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def encode_shard(shard: ScoredShard, folder: str, path: str, boundary: str) -> dict[str, Any]:
    """Write one token shard, unless it exists, and return its manifest entry."""
    codec = tokenizer.load(path, boundary)
    name = f"{os.path.splitext(shard.name)[0]}.arrow"
    output = os.path.join(folder, name)
    origin = {"scored": shard.checksum, "tokenizer": codec.fingerprint}
    if not _is_complete(output, origin):
        with shard.on_disk() as local:
            local.check()
            _write(local, output, origin, codec)
    batches = list(tables.batches(output))
    return {
        "name": name,
        "rows": sum(len(batch) for batch in batches),
        "tokens": sum(len(batch[corpus.TOKENS].values) for batch in batches),
        "bytes": sum(int(batch[scored.BYTES].to_numpy().sum()) for batch in batches),
        "sources": sorted({n for b in batches for n in b[scored.SOURCE].unique().to_pylist()}),
        "size": os.path.getsize(output),
        "checksum": storage.checksum(output),
    }


def _write(shard: ScoredShard, path: str, origin: dict[str, str], codec: TextCodec) -> None:
    copies = [scored.COPIES] if scored.COPIES in shard.names else []
    schema = corpus.shard_schema(pa.from_numpy_dtype(codec.dtype), bool(copies))
    schema = schema.with_metadata(origin)
    with files.open_output(path) as file, pa.ipc.new_file(file, schema) as writer:
        for batch in shard.batches([*scored.COLUMNS, *copies]):
            writer.write_batch(encode_batch(batch, codec, schema))


def encode_batch(batch: pa.RecordBatch, codec: TextCodec, schema: pa.Schema) -> pa.RecordBatch:
    """The token rows of a scored batch."""
    tokens, offsets = codec.encode(batch[scored.TEXT].to_pylist())
    hashes = [xxhash.xxh3_64_intdigest(value.encode()) for value in batch[scored.ID].to_pylist()]
    made = {
        corpus.ID_HASH: pa.array(np.array(hashes, np.uint64)),
        corpus.TOKENS: pa.LargeListArray.from_arrays(offsets, tokens),
    }
    columns = [made[name] if name in made else batch[name] for name in schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _is_complete(path: str, origin: dict[str, str]) -> bool:
    if not os.path.exists(path):
        return False
    with pa.memory_map(path) as source:
        metadata = pa.ipc.open_file(source).schema.metadata or {}
    return all(metadata.get(key.encode()) == value.encode() for key, value in origin.items())


def _begin_worker(threads: int) -> None:
    # Ctrl-C reaches all processes of a command; only the parent reports it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # A worker whose parent was killed would wait forever.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Read by the tokenizers library when it first encodes a batch.
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
