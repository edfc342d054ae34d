"""Ray API: starting all processes from a script.

Mended: a shutdown between the two calls, which the document shows as alternatives.
"""

import shoal as ray

ray.init()
ray.shutdown()

# 如果这台机器存在GPU, 你可以使用 num_gpus 参数指定. 类似的, 你也可以用
# num_cpus 参数指定CPU的数目.
ray.init(num_cpus=20, num_gpus=2)
print(ray.cluster_resources()["CPU"], ray.cluster_resources()["GPU"])
