"""Python 分布式计算框架 Ray, concepts: remote functions that call remote functions.

Added: the calls of `g` and `h`.
"""

import shoal as ray

@ray.remote
def f():
    return 1

@ray.remote
def g():
    # Call f 4 times and return the resulting object IDs.
    return [f.remote() for _ in range(4)]

@ray.remote
def h():
    # Call f 4 times, block until those 4 tasks finish,
    # retrieve the results, and return the values.
    return ray.get([f.remote() for _ in range(4)])

ids = ray.get(g.remote())
print("ids:", len(ids), "values:", ray.get(ids))
print("values:", ray.get(h.remote()))
