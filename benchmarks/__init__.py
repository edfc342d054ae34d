"""Benchmarks of shoal against its peers and against the machine itself.

`python -m benchmarks.run` measures, `benchmarks/README.md` tells how to read it.
The package is a tool of the repository: it is not installed with shoal and shoal
never imports it.
"""
