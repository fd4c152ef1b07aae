"""Runs the comparisons that take minutes."""

from benchmarks import overhead, peers

overhead.main()
peers.main()
