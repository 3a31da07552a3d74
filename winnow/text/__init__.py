"""Kernels over Arrow text: hashing, counting, words, hosts."""
