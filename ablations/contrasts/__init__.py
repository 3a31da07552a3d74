"""Compares two arms on one endpoint: endpoints, pairs of runs by seed, the verdict."""
