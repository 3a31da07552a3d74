"""Bits of each held-out document under a model, and bits per byte of each source.

:mod:`model.data.held_out` defines these. Routing drops nothing here, so a document's bits do not
depend on its neighbours.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from model.data.corpus import Corpus
from model.data.held_out import HeldOut
from model.glam.loss import IGNORE, chunk_tokens
from model.glam.parameter import copies
from model.glam.transformer import GLaM
from model.training.distributed import processes
from model.training.outcome import HELDOUT_SCHEMA
from model.training.train_config import TrainConfig
from winnow.commands import console


def held_out_sets(
    corpus: Corpus, config: TrainConfig, limit_bytes: int | None
) -> dict[str, HeldOut]:
    """The held-out documents by source, sharded over processes; ValueError if there are none."""
    sources = corpus.evaluated_sources
    if not sources:
        raise ValueError(
            f"the corpus {corpus.folder} holds out no document: make it with a larger held_out"
        )
    rank, world = processes.rank(), processes.count()
    length, rows = config.data.sequence_length, config.evaluate.rows * world
    return {s: HeldOut(corpus, s, length, rows, limit_bytes, rank, world) for s in sources}


@dataclass(frozen=True)
class Measured:
    """A model's results on the held-out documents of one source.

    ``bits`` is minus log2 of each document's probability, ``bytes`` its size, [documents].
    ``expert_load`` is each expert's share of first choices, [MoE layers, E].
    """

    bits: npt.NDArray[np.float64]
    bytes: npt.NDArray[np.int64]
    expert_load: npt.NDArray[np.float64]

    @property
    def bits_per_byte(self) -> float:
        return float(self.bits.sum() / self.bytes.sum())


@torch.no_grad()
def evaluate(model: GLaM, held_out: HeldOut) -> Measured:
    """Predict every token of every document; each process evaluates its share of the rows."""
    device = model.embedding.weight.device
    bits = torch.zeros(len(held_out.documents), dtype=torch.float64)
    layers, experts = len(model.config.moe_layers), model.config.experts
    chosen_LE = torch.zeros(layers, experts, dtype=torch.float64)
    training = model.training
    model.eval()
    with copies(model):
        for batch in held_out:
            counted = batch.targets != IGNORE
            place = counted.to(device)
            hidden_BSM, routings = model.hidden(batch.tokens.to(device), batch.segments.to(device))
            nats_T = token_nats(model, hidden_BSM[place], batch.targets[counted].to(device))
            bits.index_add_(0, batch.documents[counted], nats_T.cpu().double())
            for load_E, routing in zip(chosen_LE, routings, strict=True):
                first_T = routing.expert_CT[0][place.flatten()]
                load_E += first_T.bincount(minlength=experts).cpu()
    model.train(training)
    bits, chosen_LE = (processes.total(x.to(device)).cpu() for x in (bits, chosen_LE))
    tokens = max(1.0, float(chosen_LE.sum()) / max(1, layers))
    return Measured(bits.numpy() / math.log(2), held_out.bytes, (chosen_LE / tokens).numpy())


CHUNK_LOGITS_CUDA = 1 << 26
"""Logits per chunk on CUDA: a few arrays of 256 MiB in float32."""


def token_nats(model: GLaM, hidden_TM: Tensor, targets_T: Tensor) -> Tensor:
    """Minus the natural logarithm of each target's probability: float32 [T], computed in chunks."""
    embedding_VM = model.embedding.weight
    size = chunk_tokens(embedding_VM, CHUNK_LOGITS_CUDA if embedding_VM.is_cuda else None)
    parts = [
        F.cross_entropy(model.logits(hidden_CM), target_C, reduction="none")
        for hidden_CM, target_C in zip(hidden_TM.split(size), targets_T.split(size), strict=True)
    ]
    return torch.cat(parts)


def held_out_table(model: GLaM, corpus: Corpus, sets: dict[str, HeldOut]) -> pa.Table:
    """A row per document, with :data:`model.training.outcome.HELDOUT_SCHEMA`."""
    tables = []
    for source, held_out in sets.items():
        n = len(held_out.documents)
        what = f"evaluating on {n:,} held-out documents of {source}"
        with console.doing(what, processes.is_first()):
            columns = [
                pa.array([source] * n),
                pa.array(corpus.ids(held_out.documents)),
                pa.array(evaluate(model, held_out).bits),
                pa.array(held_out.bytes),
            ]
        tables.append(pa.table(columns, schema=HELDOUT_SCHEMA))
    return pa.concat_tables(tables)
