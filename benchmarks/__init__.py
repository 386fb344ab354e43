"""Figures behind the claims. Each module prints a table and its ratios: `python -m benchmarks.NAME [--json FILE]`."""
