"""Python 分布式计算框架 Ray, basic usage: starting and stopping a runtime.

Mended: the calls of the document follow each other without a shutdown in between,
though a second `init` in one process is an error; one stands after each here. The two
calls that connect to a cluster on another machine are in `framework_connect.py`.
"""

import shoal as ray

# start a Ray runtime
ray.init()
ray.shutdown()

# start a Ray runtime and specify cpu resources
ray.init(num_cpus=8)
# num_cpus Ray runtime 使用的cpu 数量，默认等于当前机器 cpu 数量
# （`psutil.cpu_count()`获取）。
print(ray.cluster_resources()["CPU"], "CPUs")
ray.shutdown()

# Start Ray. By default, Ray does not schedule more tasks concurrently than there are
# CPUs.

# start a Ray runtime and specify redis password
ray.init(_redis_password='P.4.redis')

# Terminate the Ray runtimer
ray.shutdown()
print("running:", ray.is_initialized())
