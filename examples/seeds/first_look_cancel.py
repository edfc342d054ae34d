"""Ray框架初探, section 2 (4): `ray.cancel(obj_ref)`.

Added: a task to cancel. The loop of short sleeps also stops on systems that deliver a
cancellation between two Python statements only.
"""

import time

import shoal as ray


@ray.remote
def busy():
    for _ in range(6000):
        time.sleep(0.01)


obj_ref = busy.remote()
# The task is still there after half a second ...
ready_refs, remaining_refs = ray.wait([obj_ref], timeout=0.5)
print("finished by itself:", bool(ready_refs))

ray.cancel(obj_ref)

# ... and ends at once when it is cancelled.
try:
    ray.get(obj_ref, timeout=30)
except (ray.exceptions.TaskCancelledError, ray.exceptions.RayTaskError) as error:
    print("cancelled:", "TaskCancelledError" in repr(error) + str(error))
