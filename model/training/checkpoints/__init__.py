"""Checkpoints: written, verified, found, loaded; runs that begin from or lie in a bucket."""
