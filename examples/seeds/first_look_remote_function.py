"""Ray框架初探, section 2: making and running a remote function.

Added: a body for `f` (the document has `...`), and the calls that use it.
"""

import shoal as ray


@ray.remote
def f():
    return "decorated"


# 等于


def g():
    return "wrapped"


g = ray.remote(g)

# 此时 f 已经是 ray.remote() 函数所输出的对象，而非原本的函数
print(ray.get(f.remote()), ray.get(g.remote()))
try:
    f()
except TypeError as error:
    print("a direct call:", type(error).__name__)


# remote function 接收静态的输入，同时也接收 object ref 作为输入
@ray.remote
def add(a, b):
    return a + b


upstream = add.remote(1, 2)
downstream = add.remote(upstream, 10)
print("downstream:", ray.get(downstream))
