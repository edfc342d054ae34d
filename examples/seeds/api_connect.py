"""Ray API: connecting to a running cluster.

Guarded: the call needs a cluster that was started before, so it runs only when
SHOAL_SEEDS_ADDRESS names one; the document has `12.345.67.89:6379`, which is no address.
`redis_address` is the name of those days for what is called `address` today; it works,
with a DeprecationWarning.
"""

import os

import shoal as ray

address = os.environ.get("SHOAL_SEEDS_ADDRESS")
if address:
    ray.init(redis_address=address)
    print("connected:", ray.is_initialized())
    ray.shutdown()
print("connection example done")
