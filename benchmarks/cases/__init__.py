"""The programs that are measured, one module per subject.

Each module runs as a process of its own in the interpreter of the peer it measures
(`python -m benchmarks.cases.tasks --peer ray`) and prints one JSON line per figure.
Nothing here may import more than the standard library and the peer itself, because
whatever is imported counts in start-up times and idle memory.
"""
