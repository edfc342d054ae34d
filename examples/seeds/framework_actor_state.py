"""Python 分布式计算框架 Ray, concepts: actors keep state.

Changed: the prompts of the interactive session are gone, and results are printed.
"""

import shoal as ray

@ray.remote
class Example(object):
    def __init__(self, x):
        self.x = x

    def set(self, x):
        self.x = x

    def get(self):
        return self.x

e = Example.remote(1)

print(e.set.remote(2))
print(e.get.remote())

print(ray.get(e.set.remote(2)))
print(ray.get(e.get.remote()))
