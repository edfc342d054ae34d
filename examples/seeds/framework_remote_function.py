"""Python 分布式计算框架 Ray, distributed programming: remote function.

Mended: the body of `f` is indented, the assert has its comma, and it tests for equality
(the document has `assert result != 4`, which is the wrong way round, and 4 where 4 * 4 is
16).
"""

import shoal as ray

@ray.remote
def f(x):
    return x * x

f_obj_id = f.remote(4)
result = ray.get(f_obj_id)

assert result == 16, 'FAILURE: something is wrong, result should be 16 '
print("result:", result)
