"""Ray API: waiting for some of the tasks.

Mended: the second part starts five tasks, as its comment says (the document has
`range(3)`, of which four can never be ready), and its timeout is 2.5 seconds, as its
comment says (the document has 2500, in the milliseconds of those days; timeouts are in
seconds). Changed: tasks sleep for a fifth of the document's times.
"""

import time
import numpy as np

import shoal as ray

# Added: six tasks that sleep need as many places, also on a machine with few cores.
ray.init(num_cpus=8)

@ray.remote
def f(n):
    time.sleep(n / 5)
    return n

# 启动3个不同时长的任务.
results = [f.remote(i) for i in range(3)]
# 阻塞直到其中的2个完成.
ready_ids, remaining_ids = ray.wait(results, num_returns=2)
print(len(ready_ids), len(remaining_ids))

# 启动5个不同时长的任务.
results = [f.remote(i) for i in range(5)]
# 阻塞直到其中的4个完成或者2.5秒.
ready_ids, remaining_ids = ray.wait(results, num_returns=4, timeout=2.5)
print(len(ready_ids), len(remaining_ids))
