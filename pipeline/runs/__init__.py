"""Runs that score, decide, calibrate or fit, and everything around their graphs."""
