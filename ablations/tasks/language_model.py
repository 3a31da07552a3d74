"""What an evaluation needs of a language model."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt


class LogLikelihoods(NamedTuple):
    """What was found of n continuations, each an array [n].

    ``logprob`` float64 is natural, summed over ``tokens`` (int64). ``greedy`` says that each token
    was the likeliest, ``truncated`` that the start of the context did not fit.
    """

    logprob: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    greedy: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]


class LanguageModel(Protocol):
    """What an evaluation needs of a model."""

    def loglikelihood(
        self, contexts: Sequence[str], continuations: Sequence[str]
    ) -> LogLikelihoods:
        """How likely each continuation is after its context."""
        ...

    def generate(
        self, contexts: Sequence[str], *, stop: Sequence[str], max_tokens: int, beams: int
    ) -> list[str]:
        """What follows each context, up to the first of ``stop`` or the document's end."""
        ...
