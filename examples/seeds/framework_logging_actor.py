"""Python 分布式计算框架 Ray, question 10: one actor that collects logs from tasks.

Mended: the imports, which the document leaves out. Added: tasks that log as well, and
the printing of what was gathered.
"""

import datetime
from collections import defaultdict

import shoal as ray

# definition of LoggingActor
@ray.remote
class LoggingActor(object):
    def __init__(self):
        self.logs = defaultdict(lambda: [])

    def log(self, index, message):
        message = message + datetime.datetime.now().strftime("  %Y%m%d %H:%M:%S")
        self.logs[index].append(message)

    def get_logs(self):
        return dict(self.logs)

# usage of LoggingActor
logging_actor = LoggingActor.remote()
logging_actor.log.remote(1, 'logging something from another process.')

@ray.remote
def task(index, logging_actor):
    ray.get(logging_actor.log.remote(index, 'logging something from a task.'))

ray.get([task.remote(index, logging_actor) for index in (2, 3)])

# get logs somewhere in cluster
logs = logging_actor.get_logs.remote()
logs = ray.get(logs)
for index in sorted(logs):
    print(index, logs[index][0].split("  ")[0])
