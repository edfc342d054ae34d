"""Python 分布式计算框架 Ray, concepts: a regular function and a remote function.

Mended: the bodies are indented evenly.
"""

import shoal as ray

# A regular Python function.
def regular_function(x):
    result = x * x
    return result

result = regular_function(2)
print("regular:", result)

# A Ray remote function.
@ray.remote
def remote_function(x):
    result = x * x
    return result

task_obj_id = remote_function.remote(2)
result = ray.get(task_obj_id)
print("remote:", result)
