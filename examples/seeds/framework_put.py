"""Python 分布式计算框架 Ray, concepts: `ray.put`.

Added: the function that takes the array, and the check of its results.
"""

import numpy as np

import shoal as ray

@ray.remote
def f(x):
    return float(x.sum())

x = np.zeros(1000)
results = [f.remote(x)]

# is essentially transformed under the hood to
x = np.zeros(1000)
x_id = ray.put(x)
# The call to `ray.put` copies the numpy array into the shared-memory object store, from
# where it can be read by all of the worker processes
results.append(f.remote(x_id))

# 10 copies of the array will be placed into the object store
for i in range(10):
    results.append(f.remote(x))

# placing the array in the object store only once
x_id = ray.put(x)
for i in range(10):
    results.append(f.remote(x_id))

print(len(results), "sums, all zero:", not any(ray.get(results)))
