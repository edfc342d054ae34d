"""Python 分布式计算框架 Ray, concepts: `ray.wait`.

Added: the tasks to wait for. Mended: the document says that the timeout is in
milliseconds; it is in seconds.
"""

import time

import shoal as ray

@ray.remote
def f(seconds):
    time.sleep(seconds)
    return seconds

object_ids = [f.remote(0.1), f.remote(30)]

ready_ids, remaining_ids = ray.wait(object_ids, num_returns=1, timeout=None)
print("ready:", ray.get(ready_ids))

# block until either `num_returns` objects are ready or until the timeout has passed
ready_ids, remaining_ids = ray.wait(object_ids, num_returns=2, timeout=0.2)
print(len(ready_ids), "ready,", len(remaining_ids), "remaining")
