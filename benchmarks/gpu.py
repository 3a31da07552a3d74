"""Checks the model on one GPU against the CPU, then measures its speed.

    python benchmarks/gpu.py --out DIR                      on a GPU
    python benchmarks/gpu.py --device cpu --tiny --out DIR  a rehearsal without one

Failures are recorded, and the next part starts, unless ``--seconds`` are over. ``DIR/gpu.json`` is
written after each part. Utilisation is relative to the published peak (``of the peak``) and to a
measured matrix product. Needs torch (2.11 or later), hydra-core, xxhash and, for the peers,
transformers; no network, and numba and pyarrow only with ``--corpus``. The exit code is 1 if
anything failed.
"""

import argparse
import functools
import importlib.util
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


def main() -> None:
    options = _options()
    if options.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    _do_without_numba()
    import torch
    from gpu_parts.bench import Bench
    from gpu_parts.checks import CHECKS
    from gpu_parts.speed import MEASUREMENTS

    torch.backends.cuda.matmul.allow_tf32 = False
    bench = Bench(torch.device(options.device), options.tiny, options.seconds, options.corpus)
    bench.results["about"] = {
        "device": torch.cuda.get_device_name() if bench.cuda else "CPU (a rehearsal)",
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for part in (*CHECKS, *MEASUREMENTS):
        if options.only and part.__name__ not in options.only:
            continue
        if bench.over:
            bench.results.setdefault("left_out", []).append(part.__name__)
            continue
        begun = time.monotonic()
        print(f"{part.__name__}, at {begun - bench.begun:.0f} s", flush=True)
        bench.attempt(part.__name__, functools.partial(part, bench))
        bench.results.setdefault("seconds", {})[part.__name__] = time.monotonic() - begun
        (options.out / "gpu.json").write_text(json.dumps(bench.results, indent=1), encoding="utf-8")
    print(table(bench.results))
    checks = bench.results["checks"].values()
    sys.exit(bool(bench.results.get("errors")) or not all(check["good"] for check in checks))


def table(results: dict[str, Any]) -> str:
    """The results as Markdown, for docs/gpu.md."""
    about, checks = results["about"], results["checks"]
    bad = [name for name, check in checks.items() if not check["good"]]
    lines = ["", ", ".join(f"{name} {value}" for name, value in about.items())]
    failed = f"; failed: {', '.join(bad)}" if bad else ""
    lines.append(f"{len(checks) - len(bad)} of {len(checks)} checks passed{failed}")
    if errors := results.get("errors"):
        lines.append(f"parts that failed: {', '.join(errors)}")
    if left_out := results.get("left_out"):
        lines.append(f"no time for: {', '.join(left_out)}")
    columns = ["learn_ms", "update_ms", "host_ms", "tokens/s", "of the peak", "of a product", "GiB"]
    if speed := results.get("speed"):
        lines += ["", f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for name, row in speed.items():
            shown = [f"{row[c]:.4g}" if c in row else "" for c in columns]
            lines.append(f"| {name} | {' | '.join(shown)} |")
    numbers = results["numbers"]
    lines += ["", *(f"- {name}: {value:.4g}" for name, value in numbers.items())]
    return "\n".join(lines)


def _do_without_numba() -> None:
    """Without numba, replace the CPU kernels by torch operations."""
    if importlib.util.find_spec("numba"):
        return
    print("numba is not installed: the CPU computes by torch's operations")
    kernels: Any = types.ModuleType("model.ops.cpu_kernels")
    kernels.can_read = lambda tensor: False
    kernels.compiled = lambda function: function
    kernels.Array, kernels.in_threads = object, None
    dtypes: Any = types.ModuleType("model.ops.cpu_dtypes")
    dtypes.ZERO = 0.0
    sys.modules |= {module.__name__: module for module in (kernels, dtypes)}


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _options() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal")
    parser.add_argument("--tiny", action="store_true", help="small shapes; times mean nothing")
    parser.add_argument("--seconds", type=float, default=480, help="default: 480")
    parser.add_argument("--only", nargs="*", default=[], metavar="PART", help="these parts")
    parser.add_argument("--corpus", help="of model/prepare.py, to train on by the commands")
    parser.add_argument("--out", type=Path, required=True, help="a folder for gpu.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
