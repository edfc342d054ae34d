"""Python 分布式计算框架 Ray, concepts: object ids as arguments.

Changed: the prompts of the interactive session are gone, and results are printed. What
the document runs on two machines runs on one; which one it is makes no difference to
the program.
"""

import shoal as ray

@ray.remote
def f(x):
    return x

# excuted on machine 1
x1_id = f.remote(1)

# excuted on machine 1
y1_id = f.remote(x1_id)
print(ray.get(y1_id))

# excuted on machine 2
y2_id = f.remote(x1_id)
print(ray.get(y2_id))
