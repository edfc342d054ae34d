"""Ray 原理框架概述, section 3: registering with a head node.

Guarded: the call needs the address of a running head (头节点地址), so it runs only when
SHOAL_SEEDS_ADDRESS names one.
"""

import os

import shoal as ray

address = os.environ.get("SHOAL_SEEDS_ADDRESS")
if address:
    ray.init(address=address)  # 启动
    assert ray.is_initialized() == True

    ray.shutdown()  # 关闭
    assert ray.is_initialized() == False
print("registration example done")
