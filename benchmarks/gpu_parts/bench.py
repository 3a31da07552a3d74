"""Shared by the parts: the device, the clock, results, models and batches."""

import dataclasses
import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from model import sizes
from model.accelerators import GIB
from model.glam.config import GLaMConfig
from model.glam.parameter import copies
from model.glam.transformer import GLaM

SMALL = GLaMConfig(
    vocabulary=512, layers=4, width=64, hidden=128, heads=4, head_width=16, experts=8
)

Gradients = Mapping[str, Tensor]


@dataclass
class Bench:
    """A run of all parts; ``tiny`` means small shapes, whose times mean nothing."""

    device: torch.device
    tiny: bool
    seconds: float
    corpus: str | None = None
    begun: float = field(default_factory=time.monotonic)
    results: dict[str, Any] = field(default_factory=lambda: {"checks": {}, "numbers": {}})

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def over(self) -> bool:
        return time.monotonic() - self.begun > self.seconds

    def check(self, name: str, value: float, bound: float) -> None:
        """Record a number that must not exceed its bound; NaN fails."""
        good = bool(value <= bound)
        self.results["checks"][name] = {"value": value, "bound": bound, "good": good}
        word = "ok  " if good else "FAIL"
        print(f"   {word} {name}: {value:.3g} (at most {bound:.3g})", flush=True)

    def number(self, name: str, value: float) -> None:
        self.results["numbers"][name] = value
        print(f"   {name}: {value:.4g}", flush=True)

    def row(self, name: str, values: Mapping[str, Any]) -> None:
        self.results.setdefault("speed", {})[name] = dict(values)
        shown = {k: f"{v:.4g}" for k, v in values.items() if isinstance(v, float)}
        print(f"   {name}: {shown} {values.get('failed', '')}", flush=True)

    def attempt(self, name: str, function: Callable[[], Any]) -> None:
        """Call a function; record an exception under this name."""
        try:
            function()
        except Exception:
            error = traceback.format_exc(limit=6)
            self.results.setdefault("errors", {})[name] = error
            print(error, flush=True)

    def attempt_in_time(self, name: str, function: Callable[[], Any]) -> None:
        """:meth:`attempt` with peak memory reset, unless the time is up."""
        if self.over:
            self.results.setdefault("left_out", []).append(name)
        else:
            self.forget()
            self.attempt(name, function)

    def synchronise(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def milliseconds(
        self, function: Callable[[], Any], least: int = 5, most: int = 50, seconds: float = 1.5
    ) -> float:
        """The median time of a call after a warm-up, by the device's events."""
        for _ in range(1 if self.tiny else 3):
            function()
        self.synchronise()
        times: list[float] = []
        least, seconds = (1, 0.0) if self.tiny else (least, seconds)
        end = time.monotonic() + seconds
        while len(times) < least or (time.monotonic() < end and len(times) < most):
            times.append(self._once(function))
        return statistics.median(times)

    def _once(self, function: Callable[[], Any]) -> float:
        if not self.cuda:
            begun = time.perf_counter()
            function()
            return 1e3 * (time.perf_counter() - begun)
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        function()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last))

    def peak_gib(self) -> float:
        """Peak memory since the last reset; 0 on a CPU."""
        return torch.cuda.max_memory_allocated() / GIB if self.cuda else 0.0

    def forget(self) -> None:
        """Free unused memory and reset the peak."""
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def batch(
    config: GLaMConfig, rows: int, length: int, device: torch.device, seed: int = 0
) -> list[Tensor]:
    """Random tokens, targets and segments, each [rows, length], with about four documents a row."""
    generator = torch.Generator().manual_seed(seed)
    stream = torch.randint(0, config.vocabulary, (rows, length + 1), generator=generator)
    starts = torch.rand(rows, length, generator=generator) < 4 / length
    parts = stream[:, :-1], stream[:, 1:], starts.cumsum(1).int()
    return [part.contiguous().to(device) for part in parts]


def distance(found: Tensor, expected: Tensor) -> float:
    """The relative distance of two tensors in float64; absolute where 0 is expected."""
    found, expected = (x.detach().double().cpu() for x in (found, expected))
    norm = float(expected.norm())
    return float((found - expected).norm()) / (norm or 1.0)


def gradient_distance(found: Gradients, expected: Gradients) -> float:
    """The relative distance of a model's gradients, as one vector."""
    gap = sum(float((found[n].double() - expected[n].double()).norm()) ** 2 for n in found)
    return (gap / sum(float(expected[n].double().norm()) ** 2 for n in found)) ** 0.5


def learned(
    config: GLaMConfig, device: torch.device, dtype: torch.dtype, **how: Any
) -> tuple[float, Gradients]:
    model = GLaM(config, compute_dtype=dtype, seed=3, **how).to(device)
    with copies(model):
        losses = model.loss(*batch(config, 4, 256, device))
        losses.total.backward()
    found = {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}
    return float(losses.total.detach()), found


def peer_model(name: str, config: GLaMConfig, experts: str) -> Any:
    """Transformers' Mixtral or OLMoE, shaped like a GLaM with an MoE in every layer.

    ``experts`` names transformers' implementation of experts.
    """
    import transformers

    shape: dict[str, Any] = {
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": round(config.hidden / 12) * 8,  # of three matrices, ours are two
        "num_hidden_layers": config.layers,
        **dict.fromkeys(["num_attention_heads", "num_key_value_heads"], config.heads),
        "num_experts_per_tok": 2,
        **dict.fromkeys(["output_router_logits", "tie_word_embeddings"], True),
        **dict.fromkeys(["bos_token_id", "eos_token_id", "pad_token_id"]),
    }
    if name == "Mixtral":
        settings: Any = transformers.MixtralConfig(**shape, num_local_experts=config.experts)
        kind: Any = transformers.MixtralForCausalLM
    else:
        settings = transformers.OlmoeConfig(**shape, num_experts=config.experts)
        kind = transformers.OlmoeForCausalLM
    settings._experts_implementation = experts
    return kind(settings).train()


def dense_twin(config: GLaMConfig) -> GLaMConfig:
    """A dense model with as many active parameters, by wider feed-forward layers."""
    dense = dataclasses.replace(config, experts=0)
    spare = sizes.count(config).active - sizes.count(dense).active
    wider = round(spare / (3 * config.width * config.layers) / 8) * 8
    return dataclasses.replace(dense, hidden=config.hidden + wider)
