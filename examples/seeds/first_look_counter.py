"""Ray框架初探, section 4: a remote class.

Added: the calls after the creation of the actor; the document says that methods of one
actor run in the order of the calls and share its state, and those of different actors
run in parallel.
"""

import shoal as ray


@ray.remote
class Counter(object):
    def __init__(self):
        self.value = 0

    def increment(self):
        self.value += 1
        return self.value


# Create an actor from this class.
counter = Counter.remote()

print(ray.get([counter.increment.remote() for _ in range(5)]))

# 不同 actor 的状态互不相关
other = Counter.remote()
print("another actor:", ray.get(other.increment.remote()))
