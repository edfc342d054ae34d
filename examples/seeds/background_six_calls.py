"""Ray 背景介绍: the six calls that most programs are made of.

Added: bodies, arguments and values where the document has `...`, and `self` and the
count of the actor, which it leaves out.
"""

import shoal as ray

ray.init() # 可以指定参数

@ray.remote                     # 定义一个 Task
def train_model(source):
    return "a model of " + source

@ray.remote                     # 定义一个 Actor
class ActivityTracker():
    def __init__(self):
        self.count = 0

    def record(self, event):
        self.count += 1
        return self.count

m_id = train_model.remote("digits")       # 调用一个 Task

tracker = ActivityTracker.remote()        # 构造一个 Actor 实例
tr_id =  tracker.record.remote("click")   # 调用一个 Actor 方法

my_object = {"some": "thing"}
put_id = ray.put(my_object)

model = ray.get(m_id)           # 获取 train_model 任务的结果
count = ray.get(tr_id)          # 获取 tracker.record 方法的返回结果
thing = ray.get(put_id)         # 获取 my_object
print(model, count, thing)

finished, running = ray.wait([m_id, tr_id])
print(len(finished), "finished,", len(running), "running or not asked for")
