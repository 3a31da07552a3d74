"""Winnow's one command; see :mod:`winnow.cli`."""
