#!/usr/bin/env bash
# Python 分布式计算框架 Ray, basic usage: a runtime from the shell.
#
# Changed: `ray` is `shoal`. The document lists alternatives, which cannot all run on one
# machine after each other; each is a function here.
#
# Guarded: starting a head opens network ports and leaves processes behind on purpose, so
# nothing runs unless the function is named: ./framework_bash_client.sh start_a_head
set -euo pipefail

# start a Ray runtime
start_a_head() {
    shoal start --head --port=6379
}

# start a Ray runtime and specify cpu resources
start_a_head_with_cpus() {
    # num-cpus Ray runtime 使用的cpu 数量，默认等于当前机器 cpu 数量。
    shoal start --head --port=6379 --num-cpus 8
}

# start a Ray runtime and specify redis password
start_a_head_with_a_password() {
    shoal start --head --port=6379 --redis-password P.4.redis
}

# connect to this Ray runtime from another node or outside of the cluster
join_from_another_node() {
    shoal start --address='192.168.21.156:6379' --redis-password P.4.redis
}

# Terminate the Ray runtimer
stop() {
    shoal stop
}

# more args to start a ray runtime
start_with_more_arguments() {
    shoal start --head \
        --node-ip-address=127.0.0.1 \
        --dashboard-host 0.0.0.0 \
        --dashboard-port 8888 \
        --port 6399 \
        --redis-password P.4.redis \
        --object-manager-port=2384 \
        --node-manager-port=2385
}

if (($# == 0)); then
    echo "name one of:"
    # Functions are listed with the prefix `declare -f`.
    declare -F | awk '{ print "  " $3 }'
    exit 0
fi
"$1"
