r"""Makes a training corpus of scored shards: tokenizer, tokens, held-out split and two arms.

python model/prepare.py scored=scored/ output=corpus/ tokenizer.vocabulary=8192

After an interruption the same command resumes.
"""

import contextlib
import dataclasses
import itertools
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from model.data import corpus as corpora
from model.data import encode, scored, tokenizer
from model.data.corpus import Corpus
from model.data.scored import Scored
from model.data.tokenizer import TextCodec
from winnow.commands import command_line, console, overrides
from winnow.filesystem import files, local_copies, mirror, storage

BEGUN = "begun.json"

LAYOUT = mirror.Layout(
    ours=re.compile(r"(begun|manifest|tokenizer)\.json|shards/[^/]+|arms/[^/]+"),
    single=re.compile(r"shards/[^/]+"),
    last=re.compile(r"manifest\.json"),
    sign=re.compile(r"(begun|manifest)\.json"),
)
"""How a corpus is mirrored to a bucket."""


@dataclass
class TokenizerConfig:
    """A tokenizer.json to use, or how to train one; ``conf/prepare.yaml`` explains the fields."""

    file: str | None = None
    vocabulary: int = MISSING
    sample_bytes: int = MISSING
    boundary: str = MISSING


@dataclass
class PrepareConfig:
    """Settings of ``model/prepare.py``; ``conf/prepare.yaml`` has defaults and explanations."""

    scored: str = MISSING
    output: str = MISSING
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    held_out: float = MISSING
    workers: int | None = None


def prepare(config: PrepareConfig) -> Corpus:
    """Make or resume the corpus and its arms ``filtered`` and ``unfiltered``.

    Raises:
        ValueError: the scored folder is unfinished or has changed, the output holds something
            else or is in use by another process, or an arm would be empty.
    """
    if not 0 <= config.held_out < 1:
        raise ValueError(f"held_out must lie in [0, 1), not {config.held_out}")
    source = scored.open_scored(config.scored)
    # Check these before writing anything that would block another try.
    if config.tokenizer.file is not None:
        tokenizer.load(config.tokenizer.file, config.tokenizer.boundary)
    else:
        tokenizer.check_vocabulary(config.tokenizer.vocabulary)
    key = _key(config, source)
    if storage.scheme(config.output) is None:
        with files.lock(config.output):
            return _prepare(config, source, key)
    with mirror.working_folder(config.output, LAYOUT) as local:
        corpus = _prepare(dataclasses.replace(config, output=local), source, key)
        try:  # so that training on this machine need not fetch it
            local_copies.add(local, corpora.wanted(local, corpus.manifest))
        except ValueError as error:
            console.say(f"no local copy: {error}")
    corpus.folder = config.output
    return corpus


def _prepare(config: PrepareConfig, source: Scored, key: str) -> Corpus:
    manifest = os.path.join(config.output, corpora.MANIFEST)
    files.remove_temporary(config.output)
    if not os.path.exists(manifest):
        _begin(config.output, key)
        codec = _tokenizer(config, source)
        entries = _encode(config, source, codec)
        storage.write_json(manifest, _manifest(config, key, source, codec, entries))
    elif storage.read_json(manifest)["key"] != key:
        raise ValueError(
            f"{config.output} holds a corpus of other scored shards or settings: choose another"
            " output, or delete that folder"
        )
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(config.output, BEGUN))
    corpus = corpora.open_corpus(config.output)
    about = {"rule": source.rule["name"], "parameter": source.rule.get("parameter")}
    definition = {n: v for n, v in about.items() if v is not None} | {"scored": source.key}
    corpora.write_arm(corpus, "filtered", corpus.repeats * corpus.pool, definition)
    if source.complete:
        corpora.write_arm(corpus, "unfiltered", corpus.pool, {"rule": "all"})
    return corpus


def _key(config: PrepareConfig, source: Scored) -> str:
    made = OmegaConf.to_container(OmegaConf.structured(config.tokenizer))
    if config.tokenizer.file is not None:
        made = {
            "file": storage.checksum(config.tokenizer.file),
            "boundary": config.tokenizer.boundary,
        }
    shards = [[shard.name, shard.checksum] for shard in source.shards]
    return files.fingerprint(corpora.FORMAT, source.key, shards, made, config.held_out)


def _begin(output: str, key: str) -> None:
    """Mark the folder as this corpus's; raise ValueError if it holds anything else."""
    path = os.path.join(output, BEGUN)
    if not os.path.exists(path):
        if not {files.LOCK, files.OWNER}.issuperset(os.listdir(output)):
            raise ValueError(f"{output} is not empty and holds no corpus: choose another output")
        storage.write_json(path, {"key": key})
    elif storage.read_json(path)["key"] != key:
        raise ValueError(
            f"{output} holds the beginning of another corpus (the scored folder or the settings"
            " have changed since): delete it, or choose another output"
        )


def _tokenizer(config: PrepareConfig, source: Scored) -> TextCodec:
    """Load the corpus's tokenizer, copied or trained if it does not exist yet."""
    path = os.path.join(config.output, corpora.TOKENIZER)
    if not os.path.exists(path):
        if config.tokenizer.file is not None:
            content = storage.read_bytes(config.tokenizer.file)
        else:
            sample = sample_texts(source, config.held_out, config.tokenizer.sample_bytes)
            with console.doing("training the tokenizer"):
                trained = tokenizer.train(
                    sample, config.tokenizer.vocabulary, config.tokenizer.boundary
                )
            content = trained.encode()
        with files.open_output(path) as output:
            output.write(content)
    return tokenizer.load(path, config.tokenizer.boundary)


def sample_texts(source: Scored, held_out: float, sample_bytes: int) -> Iterator[str]:
    """About ``sample_bytes`` of text of the raw pool, sampled by content hash.

    All sources and both keep decisions occur in natural proportion, so the tokenizer favours no
    arm. Held-out documents are excluded.
    """
    total = sum(
        int(batch[scored.BYTES].to_numpy()[scored.reached_decision(batch)].sum())
        for shard in source.shards
        for batch in shard.batches((scored.BYTES, scored.DROP_REASON))
    )
    share = min(1.0, sample_bytes / max(1, total))
    for shard in source.shards:
        for batch in shard.batches():
            place = scored.hash_position(batch)
            chosen = scored.reached_decision(batch) & (place >= held_out)
            chosen &= place < held_out + (1 - held_out) * share
            try:
                yield from batch[scored.TEXT].take(np.flatnonzero(chosen)).to_pylist()
            except UnicodeDecodeError:
                shard.check()
                raise


def _encode(config: PrepareConfig, source: Scored, codec: TextCodec) -> list[dict[str, Any]]:
    """Tokenise all shards and show progress; return their manifest entries in order."""
    entries: dict[int, dict[str, Any]] = {}
    begun, size = time.monotonic(), 0
    with console.doing("tokenising") as tell:
        for index, entry in encode.encode_shards(
            source.shards,
            os.path.join(config.output, "shards"),
            os.path.join(config.output, corpora.TOKENIZER),
            codec.boundary,
            config.workers or os.cpu_count() or 1,
        ):
            entries[index] = entry
            size += entry["bytes"]
            seconds = time.monotonic() - begun
            left = seconds / len(entries) * (len(source.shards) - len(entries))
            tell(
                f"tokenised {len(entries)} of {len(source.shards)} shards, {size / 1e6:.1f} MB,"
                f" {size / 1e6 / seconds:.1f} MB/s, {console.duration(left)} left"
            )
    return [entries[index] for index in range(len(source.shards))]


def _manifest(
    config: PrepareConfig, key: str, source: Scored, codec: TextCodec, entries: list[dict[str, Any]]
) -> dict[str, Any]:
    sample = list(itertools.islice(sample_texts(source, config.held_out, 1 << 20), 256))
    change = codec.first_change(sample)
    return {
        "format": corpora.FORMAT,
        "key": key,
        "scored": source.key,
        "classifier": source.classifier,
        "learned": {
            "sources": source.classifier_sources,
            "shares": scored.learned_share(source.folder),
        },
        "fingerprint": files.fingerprint(
            codec.fingerprint, config.held_out, [entry["checksum"] for entry in entries]
        ),
        "tokenizer": {
            "file": storage.checksum(os.path.join(config.output, corpora.TOKENIZER)),
            "boundary": codec.boundary,
            "boundary_id": codec.boundary_id,
            "vocabulary": codec.vocabulary,
            "lossless": change is None,
            "change": change,
        },
        "held_out": config.held_out,
        "filtered_sources": list(source.filtered_sources),
        "shards": entries,
    }


@command_line.main("prepare")
def main(config: DictConfig) -> None:
    command_line.run(_prepare_and_report, config, again="the same command resumes")


def _prepare_and_report(config: PrepareConfig) -> None:
    corpus = prepare(config)
    about = corpus.manifest["tokenizer"]
    if not about["lossless"]:
        # Older corpora have no example.
        example = " ({!r} becomes {!r})".format(*about["change"]) if "change" in about else ""
        print(
            f"note: this tokenizer changes some texts{example}, so bits per byte compare only with"
            " models that use it too",
            file=sys.stderr,
        )
    for source, share in scored.learned_share(config.scored).items():
        print(
            f"warning: the classifier was trained on {share:.1%} of the documents of {source}, so"
            " held-out text of that source flatters the filter: compare arms on others too",
            file=sys.stderr,
        )
    print(f"{'arm':<12} {'source':<16} {'documents':>12} {'tokens':>16} {'MB':>10}")
    for name in corpus.arms():
        sources = corpus.arm(name).about["sources"]
        counts = ("documents", "targets", "bytes")
        total = {count: sum(n[count] for n in sources.values()) for count in counts}
        for source, n in [*sources.items(), ("total", total)]:
            print(
                f"{name:<12} {source:<16} {n['documents']:>12,} {n['targets']:>16,}"
                f" {n['bytes'] / 1e6:>10,.2f}"
            )
    size = sum(shard["bytes"] for shard in corpus.manifest["shards"])
    documents = len(corpus.column(scored.KEPT))
    print(f"\ntime:    {console.spent(documents, size, console.elapsed())}")
    print(f"corpus:  {config.output}, {corpus.vocabulary:,} tokens in the vocabulary")
    settings = ["experiment=data_quality", f"corpus={config.output}", *_unseen(corpus)]
    print(console.next_command("study plan", *settings))


def _unseen(corpus: Corpus) -> list[str]:
    """A setting with a curated source that the classifier did not learn from, if any."""
    learned = corpus.manifest["learned"]
    known = {*corpus.manifest["filtered_sources"], *(learned["sources"] or ()), *learned["shares"]}
    return [f"unseen=[{s}]" for s in corpus.evaluated_sources if s not in known][:1]


ConfigStore.instance().store(name="prepare_schema", node=PrepareConfig)

if __name__ == "__main__":
    overrides.run(main, "prepare")
