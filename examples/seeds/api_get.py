"""Ray API: values from object ids.

Added: results are printed.
"""

import shoal as ray

@ray.remote
def f():
    return {'key1': ['value']}

# 获取单个对象ID.
print(ray.get(f.remote()))  # {'key1': ['value']}

# 获取一个对象ID列表.
print(ray.get([f.remote() for _ in range(2)]))  # [{'key1': ['value']}, {'key1': ['value']}]
