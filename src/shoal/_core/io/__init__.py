"""Thin shells: sockets, processes, shared memory, files, clocks."""
