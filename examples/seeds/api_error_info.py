"""Ray API: the list of errors so far.

Added: the list is printed. `error_info` was removed from Ray long ago; it works, with a
DeprecationWarning. The document sleeps a second for the error to arrive; so does this.
"""

import shoal as ray

@ray.remote
def f():
    raise Exception("This task failed!!")

f.remote()  # 一个错误消息将会在后台打印.

# 等待错误传播到Redis.
import time
time.sleep(1)

errors = ray.error_info()  # 返回一个错误信息列表.
print(len(errors), "error:", "This task failed!!" in str(errors[0]))
