"""Small tensors through the kernels of the CPU, which compiles them: ``winnow warm-up``."""

from pathlib import Path

import torch

from model.ops import cpu_adafactor, cpu_kernels


def use_kernels(_folder: Path) -> None:
    """Each kernel, in the dtypes that a model is trained in."""
    for dtype in (torch.float32, torch.bfloat16):
        logits_PQK, grad_PQK = torch.ones(2, 2, 4, 4, dtype=dtype)
        segments_BK = torch.zeros(1, 4, dtype=torch.int32)
        cpu_kernels.biased_softmax_(logits_PQK, torch.ones(2, 4), segments_BK, segments_BK)
        cpu_kernels.biased_softmax_backward_(logits_PQK, grad_PQK, torch.ones(2, 4))
        x, grad = torch.ones(2, 4, 8, dtype=dtype)
        scale_W = torch.ones(8)
        cpu_kernels.cross_entropy_(x.clone(), torch.zeros(4, dtype=torch.int64), 1.0, 0.0, True)
        _, inverse_T = cpu_kernels.rms_norm(x, scale_W, 1e-6)
        cpu_kernels.rms_norm_backward(grad, x, inverse_T, scale_W)
        cpu_kernels.geglu(x, grad)
        cpu_kernels.geglu_backward(grad, x, grad)
    parameter, grad = torch.ones(2, 4, 8)
    row, column, _ = cpu_adafactor.squares(parameter, grad)
    cpu_adafactor.update_square(grad, row, column, 1.0)
    cpu_adafactor.update_(parameter, grad, row, column, 1.0, 0.1)
