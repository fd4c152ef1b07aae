"""Runs the benchmarks there are."""

from benchmarks import overhead

overhead.main()
