"""What lm-evaluation-harness asks a model, in plain values, and our models' answers to it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ablations.tasks.language_model import LanguageModel, LogLikelihoods

LIKELIHOOD, ROLLING, GENERATION = "loglikelihood", "loglikelihood_rolling", "generate_until"
"""The kinds of request: of a continuation, of a whole text, and to write."""

MAX_TOKENS = 256
"""The longest written answer, where a task does not say."""

Response = tuple[float, bool] | float | str
"""To a request of each kind: log-probability and whether it is greedy decoding's; log-probability;
text."""


class Request(NamedTuple):
    """A request: its kind, and the harness's arguments, such as (context, continuation)."""

    kind: str
    arguments: tuple[Any, ...]


class Writing(NamedTuple):
    """How an answer is to be written."""

    stop: tuple[str, ...]
    max_tokens: int
    beams: int


def writing(settings: Mapping[str, Any]) -> Writing:
    """The harness's ``generation_kwargs``: greedy text, or beam search's for ``num_beams``.

    Raises:
        ValueError: it wants samples.
    """
    if settings.get("do_sample"):
        raise ValueError("this model does not sample: choose tasks with do_sample=false")
    until = settings.get("until") or []
    stop = [until] if isinstance(until, str) else until
    most = next((settings[k] for k in _LENGTHS if settings.get(k) is not None), MAX_TOKENS)
    return Writing(tuple(filter(None, stop)), int(most), int(settings.get("num_beams", 1)))


_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens")
"""What the harness's own models call the longest answer."""


def answer(
    model: LanguageModel,
    requests: Sequence[Request],
    more: Sequence[tuple[str, str]] = (),
) -> tuple[list[Response], LogLikelihoods]:
    """A model's answers to n requests, those of a kind together, and of some more continuations.

    Args:
        model: the model.
        requests: of any kinds.
        more: contexts and continuations. What a request asks too is not scored again.

    Raises:
        ValueError: the harness has asked what we can't answer.
    """
    found: dict[int, Response] = {}
    likely = [i for i, request in enumerate(requests) if request.kind == LIKELIHOOD]
    pairs = [*(requests[i].arguments for i in likely), *more]
    scored = model.loglikelihood([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    values = zip(scored.logprob.tolist(), scored.greedy.tolist(), strict=True)
    found |= dict(zip(likely, values, strict=False))  # the others are of more
    whole = [i for i, request in enumerate(requests) if request.kind == ROLLING]
    texts = [requests[i].arguments[0] for i in whole]
    found |= dict(zip(whole, model.document_loglikelihood(texts).tolist(), strict=True))
    asked: dict[Writing, list[int]] = {}
    for i, request in enumerate(requests):
        if request.kind == GENERATION:
            asked.setdefault(writing(request.arguments[1]), []).append(i)
    for how, places in asked.items():
        contexts = [requests[i].arguments[0] for i in places]
        found |= zip(places, model.generate(contexts, **how._asdict()), strict=True)
    if strangers := {requests[i].kind for i in range(len(requests)) if i not in found}:
        raise ValueError(f"our models don't answer requests of the kind {sorted(strangers)}")
    rest = LogLikelihoods(*(part[len(likely) :] for part in scored))  # type: ignore[arg-type]
    return [found[i] for i in range(len(requests))], rest
