"""The interface between an evaluation and a language model."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt


class LogLikelihoods(NamedTuple):
    """The log-likelihoods of n continuations: arrays [n].

    ``logprob`` float64 is the natural logarithm, summed over ``tokens`` (int64). ``greedy``: every
    token was the likeliest one. ``truncated``: the start of the context did not fit.
    """

    logprob: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    greedy: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]


class LanguageModel(Protocol):
    """A model that can be evaluated."""

    def loglikelihood(
        self, contexts: Sequence[str], continuations: Sequence[str]
    ) -> LogLikelihoods:
        """The log-likelihood of each continuation given its context."""
        ...

    def document_loglikelihood(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Natural log-probability of each whole text from its start: float64 [n]."""
        ...

    def generate(
        self, contexts: Sequence[str], *, stop: Sequence[str], max_tokens: int, beams: int
    ) -> list[str]:
        """Generate from each context, up to the first of ``stop`` or the end of the document."""
        ...
