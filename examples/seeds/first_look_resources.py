"""Ray框架初探, section 2 (2): resources of `init` and of remote functions.

Added: all statements; the document says in words that `init` takes resources, more than
the machine has if asked to, and that a remote function is not scheduled when it asks for
more than that.
"""

import shoal as ray

ray.init(num_cpus=6, resources={"custom": 2})


@ray.remote(num_cpus=2, resources={"custom": 1})
def fits():
    return "placed"


@ray.remote(num_cpus=7)
def never():
    return "not reached"


print(ray.get(fits.remote()), "on", ray.cluster_resources()["CPU"], "CPUs")
try:
    ray.get(never.remote(), timeout=0.5)
except ray.exceptions.GetTimeoutError:
    print("7 CPUs of 6: not scheduled")
