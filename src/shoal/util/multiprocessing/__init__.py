"""`multiprocessing.Pool` on a cluster: the same methods, processes on any node.

`Pool` takes the place of `multiprocessing.Pool`; `TimeoutError` and
`JoinableQueue` are the standard library's own.
"""

from multiprocessing import JoinableQueue, TimeoutError

from shoal.util.multiprocessing.pool import Pool

__all__ = ["JoinableQueue", "Pool", "TimeoutError"]
