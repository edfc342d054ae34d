"""Python 分布式计算框架 Ray, basic usage: connecting to a runtime of another machine.

Guarded: both calls need a cluster that was started elsewhere, so they run only when the
environment names one: SHOAL_SEEDS_ADDRESS for a node of it (as in `auto` or
`10.0.0.1:6379`), SHOAL_SEEDS_CLIENT_ADDRESS for a machine outside of it
(`ray://10.0.0.1:10001`). The document has `auto` and `ray://192.168.21.156:10001`.
"""

import os

import shoal as ray

# connect to this Ray runtime from another node
address = os.environ.get("SHOAL_SEEDS_ADDRESS")
if address:
    ray.init(address=address, _redis_password='P.4.redis')
    print("connected:", ray.is_initialized())
    ray.shutdown()
else:
    print("no SHOAL_SEEDS_ADDRESS: not connecting as a node")

# connect to this Ray runtime from outside of the cluster
client_address = os.environ.get("SHOAL_SEEDS_CLIENT_ADDRESS")
if client_address:
    ray.init(address=client_address)
    print("connected:", ray.is_initialized())
    ray.shutdown()
else:
    print("no SHOAL_SEEDS_CLIENT_ADDRESS: not connecting as a client")
print("connection examples done")
