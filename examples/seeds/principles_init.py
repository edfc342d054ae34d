"""Ray 原理框架概述, section 3: starting and stopping.

Added: the closing line.
"""

import shoal as ray
ray.init()  # 启动
assert ray.is_initialized() == True

ray.shutdown()  # 关闭
assert ray.is_initialized() == False
print("started and stopped")
