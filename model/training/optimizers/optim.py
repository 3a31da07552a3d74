"""The optimizer and the learning-rate schedule."""

import math

import torch
from torch import Tensor, nn

from model.glam.parameter import Weight, local
from model.training.distributed import processes
from model.training.optimizers.adafactor import Adafactor
from model.training.train_config import OptimizerConfig, OptimizerName, Schedule


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over all parameters; call :func:`set_learning_rate` before each step."""
    if config.name == OptimizerName.adafactor:
        return Adafactor(model.parameters(), config.learning_rate)
    spared = {id(m.weight) for m in model.modules() if isinstance(m, Weight) and not m.decay}
    decaying = [p for p in model.parameters() if id(p) not in spared]
    others = [p for p in model.parameters() if id(p) in spared]
    first, second = config.betas
    return torch.optim.AdamW(
        [
            {"params": decaying, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(first, second),
        eps=config.epsilon,
        fused=True,
    )


def learning_rate(config: OptimizerConfig, update: int, updates: int, before: int = 0) -> float:
    """The learning rate of an update, counted from 1, of ``updates`` in all.

    ``constant``; ``inverse_sqrt``, the paper's min(rate, 1 / sqrt(update)); ``cosine``, which falls
    to ``final_share``; ``wsd`` (warm-up, stable, decay: MiniCPM, Hu et al. 2024, arXiv 2404.06395),
    constant, then falling to ``final_share`` over the last ``decay_share`` of the updates, linearly
    as in Hägele et al. 2024 (arXiv 2405.18392). All rise linearly over ``warmup_steps`` and are
    scaled by ``multiplier``. Adafactor's limit of 1 / sqrt(update) is applied too, where ``before``
    counts the optimizer's updates before the run (``train.start``).
    """
    rate = config.learning_rate
    warmup = config.warmup_steps
    if config.schedule == Schedule.inverse_sqrt:
        rate = min(rate, update**-0.5)
    elif config.schedule == Schedule.cosine and update > warmup:
        done = min(1.0, (update - warmup) / max(1, updates - warmup))
        share = 0.5 * (1 + math.cos(math.pi * done))
        rate *= config.final_share + (1 - config.final_share) * share
    elif config.schedule == Schedule.wsd:
        left = updates - update
        share = min(1.0, left / max(1, config.decay_steps(updates)))
        rate *= config.final_share + (1 - config.final_share) * share
    if update <= warmup:
        rate *= update / warmup
    rate *= config.multiplier
    if config.name == OptimizerName.adafactor:
        return float(min(rate, (before + update) ** -0.5))
    return rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


@torch.no_grad()
def clip(model: nn.Module, norm: Tensor, limit: float | None) -> None:
    """Clip gradients of a known norm to ``limit``, None for no limit.

    The factor is that of ``torch.nn.utils.clip_grad_norm_``, limit / (norm + 1e-6).
    """
    if limit is None:
        return
    factor = (limit / (norm + 1e-6)).clamp_max(1.0)
    if factor.is_cpu and factor == 1.0:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    torch._foreach_mul_([local(gradient) for gradient in gradients], factor)


def step(optimizer: torch.optim.Optimizer, finite: Tensor) -> None:
    """Make the optimizer's step if ``finite``, a bool on its device, is true.

    The host does not wait for a GPU; when it knows better it calls :func:`uncount`.
    """
    # The convention of fused AdamW and our Adafactor: a float above 0 skips the step.
    known = finite.is_cpu and bool(finite)
    optimizer.found_inf = None if known else finite.logical_not().float()  # type: ignore[attr-defined]
    optimizer.step()


def uncount(optimizer: torch.optim.Optimizer) -> None:
    """Uncount a :func:`step` that was not finite."""
    if isinstance(optimizer, Adafactor):  # AdamW counts on the device
        optimizer.uncount()


@torch.no_grad()
def gradient_norm(model: nn.Module) -> Tensor:
    """The Euclidean norm of all gradients: float32, not synchronised."""
    return processes.total_norm(p.grad for p in model.parameters() if p.grad is not None)


@torch.no_grad()
def finite(model: nn.Module) -> bool:
    norm = processes.total_norm(p.detach() for p in model.parameters())
    return bool(norm.isfinite())
