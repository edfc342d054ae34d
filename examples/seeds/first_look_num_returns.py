"""Ray框架初探, section 2 (3): a remote function with several return values.

Added: the function bodies. The second function returns fewer values than it said, which
the document calls an error.
"""

import shoal as ray


@ray.remote(num_returns=3)
def three():
    return 1, 2, 3


@ray.remote(num_returns=3)
def two():
    return 1, 2


a, b, c = three.remote()
print(ray.get([a, b, c]))
try:
    ray.get(two.remote())
except ValueError as error:
    print("two values for three refs:", isinstance(error, ray.exceptions.RayTaskError))
