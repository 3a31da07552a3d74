"""Whole runs: score, decide again, calibrate, fit; and what each needs around its graph."""
