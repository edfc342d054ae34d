"""Ray API: defining a remote function.

Added: results are printed.
"""

import shoal as ray

@ray.remote
def f(x):
    return x + 1

x_id = f.remote(0)
print(ray.get(x_id))  # 1

y_id = f.remote(x_id)
print(ray.get(y_id))  # 2
