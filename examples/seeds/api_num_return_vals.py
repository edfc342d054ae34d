"""Ray API: several return values, under the name `num_return_vals` of those days.

Added: results are printed. The old name works, with a DeprecationWarning; today it is
`num_returns`.
"""

import shoal as ray

@ray.remote(num_return_vals=2)
def f():
    return 1, 2

x_id, y_id = f.remote()
print(ray.get(x_id))  # 1
print(ray.get(y_id))  # 2
