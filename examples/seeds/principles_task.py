"""Ray 原理框架概述, section 3: a task from its registration to its result.

Added: the closing line.
"""

import shoal as ray

@ray.remote
def f(x):
    return x * x

object_ref = f.remote(2)
assert ray.get(object_ref) == 4
print("the task returned 4")
