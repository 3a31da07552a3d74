"""Published figures of training accelerators."""

from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True)
class Accelerator:
    """Peak dense bfloat16 FLOP/s, bytes of memory, watts, and the source of these figures."""

    flops: float
    memory: float
    watts: float
    source: str


ACCELERATORS = {
    "tpu-v4": Accelerator(275e12, 32 * GIB, 326, "Google's figures; watts as GLaM measured them"),
    "a100": Accelerator(312e12, 80e9, 400, "NVIDIA's data sheet of the SXM board; its power limit"),
    "h100": Accelerator(989e12, 80e9, 700, "NVIDIA's data sheet of the SXM board; its power limit"),
    "h200": Accelerator(989e12, 141e9, 700, "NVIDIA's data sheet of the SXM board; its limit"),
}
