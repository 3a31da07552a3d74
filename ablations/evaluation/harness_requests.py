"""Requests of lm-evaluation-harness, and our models' answers to them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ablations.tasks.language_model import LanguageModel, LogLikelihoods

LIKELIHOOD, ROLLING, GENERATION = "loglikelihood", "loglikelihood_rolling", "generate_until"
"""Kinds of request: score a continuation, score a text, generate."""

MAX_TOKENS = 256
"""The default limit of generated tokens."""

Response = tuple[float, bool] | float | str
"""By kind: log-probability and whether decoding is greedy; log-probability; text."""


class Request(NamedTuple):
    """A request: its kind, and the harness's arguments, such as (context, continuation)."""

    kind: str
    arguments: tuple[Any, ...]


class Generation(NamedTuple):
    """Settings of a generated answer."""

    stop: tuple[str, ...]
    max_tokens: int
    beams: int


def generation_settings(settings: Mapping[str, Any]) -> Generation:
    """The harness's ``generation_kwargs``; a ValueError if they ask for sampling."""
    if settings.get("do_sample"):
        raise ValueError("this model does not sample: choose tasks with do_sample=false")
    until = settings.get("until") or []
    stop = [until] if isinstance(until, str) else until
    most = next((settings[k] for k in _LENGTHS if settings.get(k) is not None), MAX_TOKENS)
    return Generation(tuple(filter(None, stop)), int(most), int(settings.get("num_beams", 1)))


_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens")
"""Names for the maximum length in the harness's own models."""


def answer(
    model: LanguageModel, requests: Sequence[Request], extra: Sequence[tuple[str, str]] = ()
) -> tuple[list[Response], LogLikelihoods]:
    """Answer requests, and score extra pairs of contexts and continuations, each pair once.

    Raises:
        ValueError: a request is of a kind that we can't answer.
    """
    responses: dict[int, Response] = {}
    likelihoods = [i for i, request in enumerate(requests) if request.kind == LIKELIHOOD]
    pairs = [*(requests[i].arguments for i in likelihoods), *extra]
    scored = model.loglikelihood([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    values = zip(scored.logprob.tolist(), scored.greedy.tolist(), strict=True)
    responses |= dict(zip(likelihoods, values, strict=False))  # the others are extra
    rolling = [i for i, request in enumerate(requests) if request.kind == ROLLING]
    texts = [requests[i].arguments[0] for i in rolling]
    responses |= dict(zip(rolling, model.document_loglikelihood(texts).tolist(), strict=True))
    by_settings: dict[Generation, list[int]] = {}
    for i, request in enumerate(requests):
        if request.kind == GENERATION:
            by_settings.setdefault(generation_settings(request.arguments[1]), []).append(i)
    for generation, indices in by_settings.items():
        contexts = [requests[i].arguments[0] for i in indices]
        responses |= zip(indices, model.generate(contexts, **generation._asdict()), strict=True)
    if unknown := {requests[i].kind for i in range(len(requests)) if i not in responses}:
        raise ValueError(f"our models don't answer requests of the kind {sorted(unknown)}")
    extra_scores = LogLikelihoods(*(part[len(likelihoods) :] for part in scored))  # type: ignore[arg-type]
    return [responses[i] for i in range(len(requests))], extra_scores
