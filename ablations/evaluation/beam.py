"""Batched beam search with a key-value cache.

GPT-3's settings, with GLaM's width of 4: a hypothesis of n tokens is ranked by its log-probability
over ((5 + n) / 6) ** 0.6 (Wu et al. 2016, equation 14, without coverage).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.glam.attention import Cache
from model.glam.transformer import GLaM

ALPHA = 0.6

_PADDING, _TEXT = 0, 1


class Hypothesis(NamedTuple):
    """A generated sequence, including the token that ended it, and its normalised score."""

    tokens: list[int]
    score: float


def length_penalty(tokens: int) -> float:
    """The divisor of the log-probability of ``tokens`` tokens."""
    return ((5 + tokens) / 6) ** ALPHA


def beam_search(
    model: GLaM,
    prompts: Sequence[Sequence[int]],
    *,
    beams: int,
    max_tokens: int,
    boundary: int,
    stops: Callable[[list[int]], bool],
) -> list[Hypothesis]:
    """The best finished hypothesis for each prompt; if none finishes in time, the best live one.

    The model is in evaluation mode; each prompt has at least one token. One beam is greedy
    decoding. A hypothesis ends at ``boundary``, the end of a document, or where ``stops`` says so.
    """
    device = next(model.parameters()).device
    searches = [_Search(beams, boundary, stops) for _ in prompts]
    width = max(map(len, prompts))
    tokens_BS = torch.full((len(prompts), width), boundary)
    segments_BS = torch.full((len(prompts), width), _PADDING, dtype=torch.int32)
    for row, prompt in enumerate(prompts):
        tokens_BS[row, width - len(prompt) :] = torch.tensor(prompt)
        segments_BS[row, width - len(prompt) :] = _TEXT
    cache = Cache.empty(model.config.layers)
    hidden_BSM, _ = model.hidden(tokens_BS.to(device), segments_BS.to(device), cache)
    logits_BSV = model.logits(hidden_BSM)
    # One row per prompt becomes one per beam.
    _reorder(cache, torch.arange(len(prompts), device=device).repeat_interleave(beams))
    logprob_BV = logits_BSV[:, -1].log_softmax(-1).repeat_interleave(beams, 0)
    for step in range(max_tokens):
        top = logprob_BV.topk(min(2 * beams, logprob_BV.shape[1]), 1)
        values, ids = top.values.tolist(), top.indices.tolist()
        origins: list[int] = []
        for number, search in enumerate(searches):
            rows = slice(number * beams, (number + 1) * beams)
            origins += [rows.start + o for o in search.advance(values[rows], ids[rows])]
        if step == max_tokens - 1 or all(search.done(max_tokens) for search in searches):
            break
        _reorder(cache, torch.tensor(origins, device=device))
        last_B1 = torch.tensor([[t] for s in searches for t in s.last()], device=device)
        segment_B1 = torch.full_like(last_B1, _TEXT, dtype=torch.int32)
        hidden_B1M, _ = model.hidden(last_B1, segment_B1, cache)
        logprob_BV = model.logits(hidden_B1M)[:, -1].log_softmax(-1)
    return [search.best() for search in searches]


class _Search:
    """The beams of one prompt."""

    def __init__(self, beams: int, boundary: int, stops: Callable[[list[int]], bool]) -> None:
        self.beams = beams
        self.boundary = boundary
        self.stops = stops
        self.live: list[tuple[float, list[int]]] = [(0.0, [])]
        self.finished: list[Hypothesis] = []

    def advance(self, values: list[list[float]], ids: list[list[int]]) -> list[int]:
        """Extend each beam by its likeliest tokens; return the beam that each new one extends.

        Considers the best 2 * beams extensions, so that all beams stay full if some end.
        """
        extensions = [
            (total + value, origin, token)
            for origin, (total, _) in enumerate(self.live)
            for value, token in zip(values[origin], ids[origin], strict=True)
        ]
        extensions.sort(key=lambda extension: -extension[0])
        live: list[tuple[float, list[int]]] = []
        origins: list[int] = []
        for total, origin, token in extensions[: 2 * self.beams]:
            tokens = [*self.live[origin][1], token]
            if token == self.boundary or self.stops(tokens):
                self.finished.append(Hypothesis(tokens, total / length_penalty(len(tokens))))
            elif len(live) < self.beams:
                live.append((total, tokens))
                origins.append(origin)
        self.live = live
        return origins + [0] * (self.beams - len(origins))

    def last(self) -> list[int]:
        """The newest token of each beam; padding for missing beams."""
        tokens = [tokens[-1] for _, tokens in self.live]
        return tokens + [self.boundary] * (self.beams - len(tokens))

    def done(self, max_tokens: int) -> bool:
        """Whether no live beam can still beat the best finished hypothesis.

        A beam's log-probability can only fall, and the divisor is largest at ``max_tokens``.
        """
        if not self.live:
            return True
        best = max((h.score for h in self.finished), default=-float("inf"))
        return best >= self.live[0][0] / length_penalty(max_tokens)

    def best(self) -> Hypothesis:
        """The best finished hypothesis, else the best live one."""
        if self.finished:
            return max(self.finished, key=lambda h: h.score)
        total, tokens = self.live[0]
        return Hypothesis(tokens, total / length_penalty(len(tokens)))


def _reorder(cache: Cache, rows_B: Tensor) -> None:
    if cache.segments_BK is not None and torch.equal(
        rows_B, torch.arange(len(cache.segments_BK), device=rows_B.device)
    ):
        return
    for layers in (cache.keys, cache.values):
        layers[:] = [None if part is None else part[rows_B] for part in layers]
    if cache.segments_BK is not None:
        cache.segments_BK = cache.segments_BK[rows_B]
