"""Composition: each process gives its machines sockets, memory and time."""
