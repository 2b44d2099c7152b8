"""Measured ratios to peers and to the machine's limit; see ``python -m benchmarks --help``."""
