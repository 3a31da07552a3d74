"""The machine: device, precision and peak speed."""

import importlib.util
import platform
import resource
import sys
import time

import torch

from model.glam.config import AttentionBackend
from model.training.train_config import Precision


def find_device(name: str) -> torch.device:
    """The device for ``auto``, or for a name of torch's.

    Raises:
        ValueError: there is no such device.
    """
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
    """The dtype of activations and products."""
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
    """Check that attention can be computed so in training.

    Raises:
        ValueError: it can't.
    """
    if backend == AttentionBackend.plain:
        return
    if device.type != "cuda":
        raise ValueError(f"train.attention={backend} trains on CUDA only: take plain")
    if backend == AttentionBackend.triton and importlib.util.find_spec("triton") is None:
        raise ValueError(
            "train.attention=triton needs the package triton, which comes with torch on Linux:"
            " take plain or flex"
        )


def measure_peak(device: torch.device, dtype: torch.dtype) -> float:
    """The machine's peak FLOP/s, measured as the best of several matrix products."""
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
    """The peak memory in bytes: of the device, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # In kilobytes, but in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe(device: torch.device) -> str:
    """The processor's name, for the record."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor()
    return f"{name}, {torch.get_num_threads()} threads"
