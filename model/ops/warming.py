"""Compiles the CPU kernels by running them on small tensors: ``winnow warm-up``."""

from pathlib import Path

import torch

from model.ops import cpu_adafactor, cpu_kernels


def use_kernels(_folder: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        logits_PQK, grad_PQK = torch.ones(2, 2, 4, 4, dtype=dtype)
        segments_BK = torch.zeros(1, 4, dtype=torch.int32)
        cpu_kernels.biased_softmax_(logits_PQK, torch.ones(2, 4), segments_BK, segments_BK)
        cpu_kernels.biased_softmax_backward_(logits_PQK, grad_PQK, torch.ones(2, 4))
        x = torch.ones(4, 8, dtype=dtype, requires_grad=True)
        targets_T = torch.zeros(4, dtype=torch.int64)
        cpu_kernels.cross_entropy_(x.detach().clone(), targets_T, 1.0, 0.0, True)
        normed = cpu_kernels.rms_norm(x, torch.ones(8), 1e-6)
        cpu_kernels.geglu(normed, x).sum().backward()
    parameter, grad = torch.ones(2, 4, 8)
    row, column, _ = cpu_adafactor.squares(parameter, grad)
    cpu_adafactor.update_square(grad, row, column, 1.0)
    cpu_adafactor.update_(parameter, grad, row, column, 1.0, 0.1)
