"""The parts of ``benchmarks/gpu.py``: what they share, checks, measurements."""
