"""Ray框架初探, section 3: getting remote objects, with a timeout, and `ray.wait`.

Added: the objects that the calls of the document work on.
"""

import time

import numpy as np

import shoal as ray


@ray.remote
def after(seconds):
    time.sleep(seconds)
    return seconds


obj_ref = ray.put({"answer": 42})
print(ray.get(obj_ref, timeout=4))

# 如果对象是 numpy 数组或 numpy 数组的集合，则 get 调用是零拷贝的
array = ray.get(ray.put(np.arange(1_000_000)))
print("shared, so read-only:", not array.flags.writeable)

# timeout 的单位是秒
try:
    ray.get(after.remote(30), timeout=0.3)
except ray.exceptions.GetTimeoutError:
    print("timeout in seconds")

object_refs = [after.remote(0), after.remote(30)]
ready_refs, remaining_refs = ray.wait(object_refs, num_returns=1, timeout=None)
print(len(ready_refs), "ready,", len(remaining_refs), "remaining")
