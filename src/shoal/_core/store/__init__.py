"""The object store without the memory: who has which bytes of the arena.

`arena` hands out ranges of a fixed span of shared memory; `object_table` follows
the life of each local object in it.  Both are pure: they know offsets and sizes,
never the bytes, which the shells map and write.
"""
