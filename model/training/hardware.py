"""The machine: device, precision and peak speed."""

import importlib.util
import platform
import resource
import sys
import time

import torch

from model.glam.config import AttentionBackend
from model.glam.experts import BACKENDS, ExpertBackend, ExpertInputs
from model.training.train_config import Precision


def find_device(name: str) -> torch.device:
    """The device for ``auto`` or a torch name; raise ValueError if it is unavailable."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device={name}: {error}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device={name}: only cpu and cuda are supported")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={name}, but torch sees no CUDA device: use cpu or auto")
    return device


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    if precision == Precision.auto:
        precision = Precision.bf16 if multiplies_bfloat16(device) else Precision.fp32
    return torch.bfloat16 if precision == Precision.bf16 else torch.float32


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the processor has bfloat16 instructions; without them it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def check_attention(backend: AttentionBackend, device: torch.device) -> None:
    """Raise ValueError if a device can't train with this attention backend."""
    if backend == AttentionBackend.plain:
        return
    if device.type != "cuda":
        raise ValueError(f"train.attention={backend} trains on CUDA only: take plain")
    if backend == AttentionBackend.triton and importlib.util.find_spec("triton") is None:
        raise ValueError(
            "train.attention=triton needs the package triton, which comes with torch on Linux:"
            " take plain or flex"
        )


def check_grouped_products(
    device: torch.device, compute: ExpertBackend = BACKENDS["grouped"]
) -> None:
    """Check ``grouped_mm`` in bfloat16, with experts without rows and rows without expert.

    On Blackwell gradients of experts without rows were not zero (pytorch/pytorch issue 172439).
    Results past the last expert are uninitialised memory, which this fills with NaN beforehand.
    Raises ValueError if a result is wrong.
    """
    counts, tail, M, H = (162, 0, 257, 46, 0, 83), 20, 64, 128
    generator = torch.Generator().manual_seed(0)
    draws = (
        torch.randn(size, generator=generator) / size[-2] ** 0.5
        for size in ((1, sum(counts) + tail, M), (len(counts), M, H), (len(counts), H, M))
    )
    x_1RM, w_in, w_out = (draw.to(device, torch.bfloat16) for draw in draws)
    ends_E = torch.tensor(counts, device=device).cumsum(0).to(torch.int32)
    results = []
    for backend, dtype in ((BACKENDS["loop"], torch.float32), (compute, torch.bfloat16)):
        leaves = [t.to(dtype, copy=True).requires_grad_() for t in (x_1RM[0], w_in, w_out)]
        torch.full((1 << 20,), torch.nan, device=device)  # freed, and reused below
        y_RM = backend(ExpertInputs(leaves[0], ends_E, leaves[1], leaves[2], torch.relu))
        grads = torch.autograd.grad(y_RM, leaves, torch.ones_like(y_RM))
        results.append([y_RM.detach().float(), *(grad.float() for grad in grads)])
    for exact, found in zip(*results, strict=True):
        near = (found - exact).norm() <= 0.03 * exact.norm()
        if not (near and (found[exact == 0] == 0).all()):
            raise ValueError(
                f"grouped products of experts without rows are wrong on {describe(device)} with"
                f" torch {torch.__version__}: use another version of torch, or"
                " train.precision=fp32, which does not need them"
            )


def measure_peak(device: torch.device, dtype: torch.dtype) -> float:
    """The peak FLOP/s, measured as the best of several matrix products."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        begun = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begun)
    return 2.0 * size**3 / best


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of the device, or on a CPU of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, else kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe(device: torch.device) -> str:
    """The processor's name, for the outcome."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor()
    return f"{name}, {torch.get_num_threads()} threads"
