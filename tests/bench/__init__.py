"""Benchmarks: ``make bench``. Each figure is measured against its limit or peer in the same run, interleaved.

Not tests: nothing here fails because a machine is slow. Figures go to docs/performance.md by hand.
"""
