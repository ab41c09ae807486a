"""Benchmarks: `python -m tests.bench.<name> [--quick] [--json FILE]` measures the kit beside its peers."""
