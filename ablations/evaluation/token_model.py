"""A GLaM model as the language model of an evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ablations.evaluation.beam import Hypothesis, beam_search
from ablations.tasks.language_model import LogLikelihoods
from model.data.tokenizer import TextCodec
from model.glam.parameter import copies
from model.glam.transformer import GLaM
from model.training import hardware
from model.training.checkpoints import trained
from model.training.distributed import processes
from model.training.distributed.joint_calls import joint_calls
from model.training.train_config import Precision

BATCH_TOKENS = 8192
"""Tokens in a padded batch."""


class Pair(NamedTuple):
    """Tokens of a context, a boundary first, and of its continuation."""

    context: list[int]
    continuation: list[int]
    truncated: bool


@dataclass(frozen=True)
class TokenModel:
    """A GLaM model and its tokenizer as a :class:`ablations.tasks.language_model.LanguageModel`.

    Processes that share the model get the same requests; each answers a share, and all get all
    answers. ``max_tokens`` is the training length, ``batch_tokens`` the size of a padded batch.
    """

    model: GLaM
    codec: TextCodec
    max_tokens: int
    batch_tokens: int = BATCH_TOKENS

    def pair(self, context: str, continuation: str) -> Pair:
        """The tokens of the joined text, split after as many tokens as the context alone has.

        Trailing spaces of the context go to the continuation, since tokens start with spaces.
        Both are lm-evaluation-harness's rules. Contexts that are too long lose their start. A
        continuation longer than ``max_tokens`` keeps one token of context and is not truncated: the
        model's relative bias takes any length, though untrained.

        Raises:
            ValueError: the continuation has no tokens.
        """
        stripped = context.rstrip()
        context_tokens, tokens = self._encode([stripped, context + continuation])
        continuation_tokens = tokens[len(context_tokens) :]
        if not continuation_tokens:
            raise ValueError(f"the continuation {continuation!r} adds no token to its context")
        # The last token is only predicted, so max_tokens + 1 fit.
        sequence = [self.codec.boundary_id, *tokens]
        n = len(continuation_tokens)
        kept = sequence[-(max(self.max_tokens, n) + 1) :]
        return Pair(kept[:-n], continuation_tokens, len(kept) < len(sequence))

    def loglikelihood(
        self, contexts: Sequence[str], continuations: Sequence[str]
    ) -> LogLikelihoods:
        """As in the protocol; equal pairs are scored once, pairs of similar length batched."""
        requested = list(zip(contexts, continuations, strict=True))
        unique = list(dict.fromkeys(requested))
        pairs = [self.pair(*pair) for pair in unique]
        logprob, greedy = self._score_all(pairs)
        tokens = np.array([len(p.continuation) for p in pairs], np.int64)
        truncated = np.array([p.truncated for p in pairs], np.bool_)
        place = {pair: i for i, pair in enumerate(unique)}
        index = np.array([place[pair] for pair in requested], np.int64)
        return LogLikelihoods(logprob[index], tokens[index], greedy[index], truncated[index])

    def document_loglikelihood(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Natural log-probability of each text from its start: float64 [n].

        As in :mod:`model.data.held_out`, windows of ``max_tokens`` see one token before them. The
        end of the document is not predicted.
        """
        pairs: list[Pair] = []
        owner: list[int] = []
        for number, tokens in enumerate(self._encode(texts)):
            sequence = [self.codec.boundary_id, *tokens]
            for start in range(0, len(tokens), self.max_tokens):
                window = sequence[start : start + self.max_tokens + 1]
                pairs.append(Pair(window[:1], window[1:], False))
                owner.append(number)
        logprob, _ = self._score_all(pairs)
        return np.bincount(owner, logprob, minlength=len(texts)).astype(np.float64)

    @torch.no_grad()
    def generate(
        self, contexts: Sequence[str], *, stop: Sequence[str], max_tokens: int, beams: int
    ) -> list[str]:
        """Beam search with GPT-3's length penalty; contexts lose their start to fit an answer."""
        room = self.max_tokens - max_tokens
        if room < 1:
            raise ValueError(f"no room for {max_tokens} new tokens in {self.max_tokens}")
        boundary = self.codec.boundary_id
        prompts = [[boundary, *tokens][-room:] for tokens in self._encode([*contexts])]
        batches = list(self._batches([beams * (len(p) + max_tokens) for p in prompts]))
        texts_here: dict[int, str] = {}
        with copies(self.model), joint_calls(self.model):
            for batch in processes.share(batches):
                hypotheses = beam_search(
                    self.model,
                    [prompts[i] for i in batch],
                    beams=beams,
                    max_tokens=max_tokens,
                    boundary=boundary,
                    stops=lambda tokens: self._ends(tokens, stop),
                )
                for i, hypothesis in zip(batch, hypotheses, strict=True):
                    texts_here[i] = self._text(hypothesis, stop)
        texts: dict[int, str] = {}
        for part in processes.together(lambda: texts_here):
            texts |= part
        return [texts[i] for i in range(len(prompts))]

    def _ends(self, tokens: Sequence[int], stop: Sequence[str]) -> bool:
        text = self.codec.decode(tokens)
        return any(end in text for end in stop)

    def _text(self, hypothesis: Hypothesis, stop: Sequence[str]) -> str:
        text = self.codec.decode([t for t in hypothesis.tokens if t != self.codec.boundary_id])
        return text[: min((text.index(end) for end in stop if end in text), default=len(text))]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        tokens, offsets = self.codec.encode(texts)
        return [part.tolist() for part in np.split(tokens, offsets[1:-1])]

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Batches of indices, longest sequences first, so that too large a batch fails early."""
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        while order:
            rows = max(1, self.batch_tokens // lengths[order[0]])
            yield order[:rows]
            order = order[rows:]

    @torch.no_grad()
    def _score_all(
        self, pairs: Sequence[Pair]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Log-probability and greediness of each pair, in batches: [n] each."""
        batches = list(self._batches([len(p.context) + len(p.continuation) - 1 for p in pairs]))
        found_2N = torch.zeros(2, len(pairs), dtype=torch.float64)
        with copies(self.model), joint_calls(self.model):
            for batch in processes.share(batches):
                scores = self._score([pairs[i] for i in batch])
                found_2N[:, batch] = torch.tensor(scores, dtype=torch.float64).T
        # Each pair was scored by one process; the others add zeros.
        logprob, greedy = processes.total(found_2N.to(self.model.embedding.weight.device)).cpu()
        return logprob.numpy(), greedy.numpy() > 0

    def _score(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        """Each pair's log-probability, and whether it is greedy decoding's."""
        device = next(self.model.parameters()).device
        width = max(len(p.context) + len(p.continuation) - 1 for p in pairs)
        tokens_BS = torch.full((len(pairs), width), self.codec.boundary_id)
        rows: list[int] = []
        places: list[int] = []
        for row, pair in enumerate(pairs):
            sequence = [*pair.context, *pair.continuation[:-1]]
            tokens_BS[row, : len(sequence)] = torch.tensor(sequence)
            rows += [row] * len(pair.continuation)
            places += range(len(pair.context) - 1, len(sequence))
        hidden_BSM, _ = self.model.hidden(tokens_BS.to(device))
        logprob_TV = self.model.logits(hidden_BSM[rows, places]).log_softmax(-1)
        target_T = torch.tensor([t for p in pairs for t in p.continuation], device=device)
        chosen_T = logprob_TV.gather(1, target_T[:, None])[:, 0].double().cpu()
        top_T = (logprob_TV.argmax(1) == target_T).cpu()
        sizes = [len(p.continuation) for p in pairs]
        return [
            (float(chosen.sum()), bool(top.all()))
            for chosen, top in zip(chosen_T.split(sizes), top_T.split(sizes), strict=True)
        ]


def load_model(
    run: str,
    device: str = "auto",
    precision: str = "auto",
    batch_tokens: int = BATCH_TOKENS,
    length: int | None = None,
) -> TokenModel:
    """A trained model, shared by joined processes; ``conf/evaluate.yaml`` explains the arguments.

    Raises:
        ValueError: no complete checkpoint, or no such device or precision.
    """
    target = hardware.find_device(device)
    dtype = hardware.compute_dtype(Precision(precision), target)
    loaded = trained.load(run, target, dtype)
    return TokenModel(loaded.model, loaded.codec, length or loaded.sequence_length, batch_tokens)
