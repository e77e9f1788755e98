#!/usr/bin/env bash
# The registry's and Prefect's servers on this machine, on loopback alone: up | down.
set -euo pipefail
cd "$(dirname "$0")/.."
home=${MEDIMIND_HOME:-$PWD/var}
run=$home/run
mkdir -p -m 700 "$home" "$run" "$home/logs" "$home/mlflow/artifacts" "$home/prefect"
mlflow_port=${MEDIMIND_MLFLOW_PORT:-5000}
prefect_port=${MEDIMIND_PREFECT_PORT:-4200}
export PREFECT_HOME=$home/prefect PREFECT_API_URL=http://127.0.0.1:$prefect_port/api
registry="sqlite:///$home/mlflow/mlflow.db"

alive() { [ -f "$run/$1.pid" ] && kill -0 -- "-$(cat "$run/$1.pid")" 2>/dev/null; }

start() { # name, command…
    local name=$1
    shift
    if alive "$name"; then return; fi
    setsid "$@" >"$home/logs/$name.log" 2>&1 </dev/null &
    echo $! >"$run/$name.pid"
}

answers() { # name, url
    for _ in $(seq 240); do
        if .venv/bin/python -c "import sys, urllib.request as u; u.build_opener(u.ProxyHandler({})).open('$2', timeout=2)" 2>/dev/null; then return; fi
        alive "$1" || break
        sleep 0.5
    done
    echo "local.sh: $1 did not start; see $home/logs/$1.log" >&2
    exit 2
}

case ${1:-} in
up)
    start mlflow .venv/bin/mlflow server --backend-store-uri "$registry" --artifacts-destination "$home/mlflow/artifacts" \
        --host 127.0.0.1 --port "$mlflow_port" --workers 1 --allowed-hosts "127.0.0.1:$mlflow_port,localhost:$mlflow_port"
    start prefect .venv/bin/prefect server start --host 127.0.0.1 --port "$prefect_port"
    answers mlflow "http://127.0.0.1:$mlflow_port/health"
    answers prefect "$PREFECT_API_URL/health"
    MEDIMIND_REGISTRY=http://127.0.0.1:$mlflow_port .venv/bin/python -m pipelines.promote
    start worker .venv/bin/prefect worker start --pool medimind --type process
    cat <<TEXT
the registry   http://127.0.0.1:$mlflow_port   (MEDIMIND_REGISTRY=http://127.0.0.1:$mlflow_port to use it from here)
the flows      http://127.0.0.1:$prefect_port   (PREFECT_API_URL=$PREFECT_API_URL .venv/bin/medimind schedule)
make down stops both.
TEXT
    ;;
down)
    for name in worker prefect mlflow; do
        if alive "$name"; then
            group=$(cat "$run/$name.pid")
            kill -- "-$group"
            for _ in $(seq 50); do alive "$name" && sleep 0.2 || break; done # a worker waits for its server
            if alive "$name"; then kill -9 -- "-$group"; fi
        fi
        rm -f "$run/$name.pid"
    done
    ;;
*)
    echo "usage: deploy/local.sh up | down" >&2
    exit 2
    ;;
esac
