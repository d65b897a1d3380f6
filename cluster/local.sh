#!/usr/bin/env bash
# A cluster of two nodes on this machine, to try what a cluster would do:
#
#     cluster/local.sh start          two nodes of half of the cores each; prints what to export
#     cluster/local.sh stop           ends these two and no other Ray of yours
#
# Needs lenspipe's environment to be active. Ray listens on all interfaces; nobody gets in without the token, which is in a
# file of its own.
set -euo pipefail

state="${LENSPIPE_CLUSTER:-$HOME/.cache/lenspipe/cluster}"
port="${LENSPIPE_CLUSTER_PORT:-20379}" # above the ports of workers, 10002 to 19999
address="127.0.0.1:$port"

# each node's processes are in a session of their own, so that a stop ends these and nothing else
node() {
    local name=$1
    shift
    setsid ray start --block --node-ip-address=127.0.0.1 --disable-usage-stats "$@" \
        >"$state/$name.log" 2>&1 </dev/null &
    echo $! >"$state/$name.pid"
}

start() {
    if compgen -G "$state/*.pid" >/dev/null; then
        echo "a cluster is there already ($state); end it by: $0 stop" >&2
        exit 2
    fi
    local cores each
    cores=$(nproc)
    each=$(((cores + 1) / 2))
    mkdir -p "$state"
    (umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$state/token")
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$state/token"
    export RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 RAY_idle_worker_killing_time_threshold_ms=600000
    # two agents of Ray on one machine need ports of their own
    node head --head --port="$port" --num-cpus="$each" --dashboard-host=127.0.0.1 \
        --dashboard-port=$((port + 1)) --dashboard-agent-listen-port=$((port + 2)) \
        --dashboard-agent-grpc-port=$((port + 3)) --metrics-export-port=$((port + 4))
    until ray health-check --address "$address" >/dev/null 2>&1; do
        if ! kill -0 "$(<"$state/head.pid")" 2>/dev/null; then
            cat "$state/head.log" >&2
            rm -f "$state"/*.pid
            exit 1
        fi
        sleep 1
    done
    node second --address="$address" --num-cpus="$each" --dashboard-agent-listen-port=$((port + 5)) \
        --dashboard-agent-grpc-port=$((port + 6)) --metrics-export-port=$((port + 7))
    cat <<EOF
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$state/token
export RAY_ADDRESS=$address                                   # for lenspipe scan ...
ray job submit --address http://127.0.0.1:$((port + 1)) --working-dir . -- python jobs/scan_survey.py ...
EOF
}

stop() {
    for file in "$state"/*.pid; do
        [[ -e $file ]] || continue
        kill -TERM -- "-$(<"$file")" 2>/dev/null || true
    done
    sleep 2
    for file in "$state"/*.pid; do
        [[ -e $file ]] || continue
        kill -KILL -- "-$(<"$file")" 2>/dev/null || true
    done
    rm -f "$state"/*.pid "$state"/*.log "$state/token"
}

case "${1:-}" in
start) start ;;
stop) stop ;;
*)
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
