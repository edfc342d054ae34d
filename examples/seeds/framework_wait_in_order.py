"""Python 分布式计算框架 Ray, question 12: tasks in the order that they finish.

Mended: `f` and the import are missing in the document. It subtracts the start of all
from what `f` returns, so `f` returns the time at which it finished.
"""

import random
import time

import shoal as ray

@ray.remote
def f():
    time.sleep(random.uniform(0, 0.2))
    return time.time()

start_time = time.time()

remaining_result_ids = [f.remote() for _ in range(10)]

# Get the results.
results = []
while len(remaining_result_ids) > 0:
    result_ids, remaining_result_ids = ray.wait(remaining_result_ids, num_returns=1)
    result = ray.get(result_ids[0])
    results.append(result)
    print('Processing result which finished after {} seconds.'
          .format(result - start_time))

end_time = time.time()
duration = end_time - start_time
print(len(results), "results, each within the total time:",
      all(0 < result - start_time <= duration for result in results))
