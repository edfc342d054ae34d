"""Ray API: putting objects into the object store.

Added: the results are waited for and printed.
"""

import shoal as ray

x_id = ray.put(1)
print(ray.get(x_id))  # 1

import numpy as np

@ray.remote
def f(x):
    pass

x = np.zeros(10 ** 6)

# 方法1: 这里x被拷贝了10次到object store
first = [f.remote(x) for _ in range(10)]

# 方法2: 这里x仅被拷贝了1次到object store
x_id = ray.put(x)
second = [f.remote(x_id) for _ in range(10)]

print(len(ray.get(first + second)), "tasks done")
