"""Ray框架初探, section 1: `ray.init` once per process, and what it returns.

Added: the statements around the two calls, since the document describes them in words
(init may be called once in a process, a second call is an error) and shows the
information it returns as JSON.
"""

import shoal as ray

context = ray.init()
try:
    ray.init()
except RuntimeError as error:
    print("second init:", type(error).__name__)
print("node_id" in context.address_info, "gcs_address" in context.address_info)
ray.shutdown()
print("init may be called once")
