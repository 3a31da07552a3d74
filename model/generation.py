"""Text generation with a trained model, token by token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig
from torch import Tensor

from model.glam.attention import Cache
from model.glam.config import require
from model.glam.parameter import copies
from model.glam.transformer import GLaM
from model.training import hardware
from model.training.checkpoints import trained
from model.training.checkpoints.trained import Trained
from model.training.distributed import processes
from model.training.distributed.joint_calls import joint_calls
from model.training.train_config import Precision
from winnow.commands import command_line, console


@dataclass
class GenerateConfig:
    """Settings of ``model/generate.py``; ``conf/generate.yaml`` explains them."""

    checkpoint: str = MISSING
    prompt: str = MISSING
    tokens: int = MISSING
    temperature: float = MISSING
    top_k: int | None = MISSING
    seed: int = MISSING
    device: str = MISSING
    precision: Precision = MISSING
    patience: float = MISSING

    def __post_init__(self) -> None:
        require(self.tokens >= 1, f"tokens must be at least 1, not {self.tokens}")
        require(self.temperature >= 0, f"temperature must be 0 or more, not {self.temperature}")
        top_k = 1 if self.top_k is None else self.top_k
        require(top_k >= 1, f"top_k must be at least 1, not {top_k}")


def choose(
    logits_V: Tensor, temperature: float, top_k: int | None, generator: torch.Generator
) -> int:
    """The next token: the most probable one at temperature 0, else a sample."""
    if temperature == 0:
        return int(logits_V.argmax())
    logits_V = logits_V.cpu() / temperature
    if top_k is not None and top_k < len(logits_V):
        values, tokens = logits_V.topk(top_k)
        return int(tokens[torch.multinomial(values.softmax(-1), 1, generator=generator)])
    return int(torch.multinomial(logits_V.softmax(-1), 1, generator=generator))


def generate(
    model: GLaM,
    prompt: Sequence[int],
    count: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[int]:
    """Yield ``count`` tokens that continue a prompt, from a model in evaluation mode.

    The prompt begins with the boundary. ``temperature`` and ``top_k`` are those of :func:`choose`;
    ``seed`` keys its draws.
    """
    device = model.embedding.weight.device
    # FSDP can't gather weights in inference mode, which is faster.
    mode = torch.inference_mode if processes.count() == 1 else torch.no_grad
    generator = torch.Generator().manual_seed(seed)
    cache = Cache.empty(model.config.layers)
    new = list(prompt)
    with copies(model):
        for _ in range(count):
            with mode():
                hidden_1SM, _ = model.hidden(torch.tensor([new], device=device), cache=cache)
                logits_1SV = model.logits(hidden_1SM)
            token = choose(logits_1SV[0, -1], temperature, top_k, generator)
            yield token
            new = [token]


def generate_text(config: GenerateConfig) -> Iterator[str]:
    """Load the model, and return the continuation in pieces of whole characters.

    If several processes share the model, only the first yields text. Raises ValueError if there is
    no such model, or the processes can't share it.
    """
    device = processes.join(hardware.find_device(config.device), config.patience)
    dtype = hardware.compute_dtype(config.precision, device)
    with console.doing(f"reading {config.checkpoint}", processes.is_first()):
        loaded = trained.load(config.checkpoint, device, dtype)
    return _pieces(loaded, config)


def _pieces(loaded: Trained, config: GenerateConfig) -> Iterator[str]:
    codec = loaded.codec
    with joint_calls(loaded.model):
        if not processes.is_first():
            return
        seen = codec.encode([config.prompt])[0].tolist()
        # Decode the prompt too: some decoders drop the space before their first token.
        shown = codec.decode(seen)
        for token in generate(
            loaded.model, [codec.boundary_id, *seen], config.tokens,
            temperature=config.temperature, top_k=config.top_k, seed=config.seed,
        ):  # fmt: skip
            if token == codec.boundary_id:
                break
            seen.append(token)
            text = codec.decode(seen)
            if not text.endswith("\ufffd"):  # perhaps an incomplete character
                yield text[len(shown) :]
                shown = text
        yield codec.decode(seen)[len(shown) :]


@command_line.main("generate")
def main(config: DictConfig) -> None:
    command_line.run(_generate_and_print, config)


def _generate_and_print(config: GenerateConfig) -> None:
    pieces = generate_text(config)
    first = processes.is_first()
    print(config.prompt if first else "", end="")
    for piece in pieces:
        print(piece, end="", flush=True)
    print(end="\n" if first else "")
    processes.leave()


ConfigStore.instance().store(name="generate_schema", node=GenerateConfig)
