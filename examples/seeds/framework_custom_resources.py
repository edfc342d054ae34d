"""Python 分布式计算框架 Ray, concepts: custom resources.

Mended: `init` offers the resources under the names that the tasks ask for (the document
has CPUResource1 and CPUResource2 there), and `time` is imported. `f` can never be placed,
so the document's `ray.get` of it waits for ever after a warning; here it has a timeout.
"""

import time

import shoal as ray

ray.init(num_cpus=8, resources={'CustomResource1': 1, 'CustomResource2': 4})

@ray.remote(resources={"CustomResource1": 2})
def f(x):
    time.sleep(0.1)
    return x

@ray.remote(resources={"CustomResource2": 3})
def g(x):
    time.sleep(0.1)
    return x * x

# function `g` use 3 CustomResource2, there are 4.
g_obj_id = g.remote(2)
print(ray.get(g_obj_id))

# function `f` needs 2 CustomResource1, there are 1.
f_obj_id = f.remote(2)
try:
    print(ray.get(f_obj_id, timeout=2.5))
except ray.exceptions.GetTimeoutError:
    print("f cannot be scheduled")
