"""Ray API: starting a new task whenever one has finished.

Unchanged but for the import.
"""

import shoal as ray

@ray.remote
def f():
    return 1

# 启动5个任务.
remaining_ids = [f.remote() for i in range(5)]
# 当一个任务完成后, 启动一个新任务.
for _ in range(100):
    ready_ids, remaining_ids = ray.wait(remaining_ids)
    # 当有一个对象可用后对其进行处理.
    print(ray.get(ready_ids))
    # 启动一个新任务.
    remaining_ids.append(f.remote())
