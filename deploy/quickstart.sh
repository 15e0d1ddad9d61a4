#!/bin/sh
# `npm start`: from a fresh Debian machine to a running service on a one-node cluster. `npm stop`: takes it away again.
# Both can be repeated. Settings, for a machine where the defaults are taken: TSSWARM_DATA_ROOT, TSSWARM_RUN_DIR,
# TSSWARM_METRICS_ADDR.
set -u
cd "$(dirname "$0")/.." || exit 1
. deploy/prepare.sh

DATA_ROOT=${TSSWARM_DATA_ROOT:-/var/lib/tsswarm}
RUN_DIR=${TSSWARM_RUN_DIR:-/run/tsswarm}
LOG=/var/log/tsswarmd.log
[ "$RUN_DIR" = /run/tsswarm ] || LOG="$DATA_ROOT.log"
PID_FILE="$DATA_ROOT/quickstart.pid"
LINKS="/usr/local/bin/tsswarm /usr/local/bin/tsswarmd"
IMAGE=localhost/tsswarm-demo:1
SERVICE=demo
export TSSWARM_DATA_ROOT="$DATA_ROOT" TSSWARM_RUN_DIR="$RUN_DIR" TSSWARM_HOST="unix://$RUN_DIR/control.sock"
TSSWARM="$PWD/dist/bin/tsswarm"
TSSWARMD="$PWD/dist/bin/tsswarmd"

daemon_pid() {
  pid=$(cat "$PID_FILE" 2>/dev/null) || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q tsswarmd && echo "$pid"
}

start_daemon() {
  if daemon_pid >/dev/null; then return; fi
  if [ -S "$RUN_DIR/node.sock" ] && "$TSSWARM" info >/dev/null 2>&1; then
    fail "another tsswarmd is running on $RUN_DIR" "use it, or set TSSWARM_RUN_DIR and TSSWARM_DATA_ROOT to other folders"
  fi
  mkdir -p "$DATA_ROOT" || fail "cannot make $DATA_ROOT"
  nohup "$TSSWARMD" >>"$LOG" 2>&1 </dev/null &
  echo $! >"$PID_FILE"
  tries=0
  until "$TSSWARM" info >/dev/null 2>&1; do
    kill -0 "$(cat "$PID_FILE")" 2>/dev/null || fail "tsswarmd did not start: $(tail -n 3 "$LOG")" "its log is $LOG"
    tries=$((tries + 1))
    [ $tries -lt 150 ] || fail "tsswarmd does not answer after 30 s" "its log is $LOG"
    sleep 0.2
  done
}

link_commands() {
  for link in $LINKS; do
    [ -L "$link" ] || [ ! -e "$link" ] || continue
    ln -sf "$PWD/dist/bin/$(basename "$link")" "$link" 2>/dev/null || say "note: $link could not be made; use dist/bin/$(basename "$link")"
  done
}

deploy_demo() {
  "$TSSWARM" image ls --format '{{.Repository}}:{{.Tag}}' | grep -qx "$IMAGE" || {
    archive=$(mktemp)
    "$NODE" deploy/write-demo-image.ts "$IMAGE" >"$archive" || fail "the image could not be built"
    "$TSSWARM" image import "$archive" >/dev/null || fail "the image could not be imported"
    rm -f "$archive"
  }
  "$TSSWARM" service inspect "$SERVICE" >/dev/null 2>&1 ||
    "$TSSWARM" service create --name "$SERVICE" --replicas 3 --no-resolve-image \
      --publish mode=host,target=8080 --limit-memory 64m "$IMAGE" >/dev/null ||
    { "$TSSWARM" why "$SERVICE"; fail "the service did not come up"; }
}

# Asks every task over HTTP; prints the addresses that answered.
check_demo() {
  "$NODE" deploy/check-demo.ts "$TSSWARM" "$SERVICE" || { "$TSSWARM" why "$SERVICE"; fail "a task does not answer"; }
}

start() {
  require_linux
  require_root
  require_kernel
  install_debian $NODE_PACKAGES
  install_npm
  build
  start_daemon
  link_commands
  "$TSSWARM" node ls >/dev/null 2>&1 || "$TSSWARM" init --advertise-addr 127.0.0.1 >/dev/null || fail "the cluster could not be made"
  deploy_demo
  say "A one-node cluster is running, and on it the service \"$SERVICE\" with 3 tasks from an image built here:"
  say
  "$TSSWARM" service ps "$SERVICE" --filter desired-state=running
  say
  check_demo
  say
  say "Where to look next:"
  printf '  %-45s %s\n' \
    "tsswarm service ls" "services, and how many tasks run" \
    "tsswarm service scale $SERVICE=5" "more of it" \
    "tsswarm service logs $SERVICE" "what it says" \
    "tsswarm why $SERVICE" "why something does not run" \
    "curl http://${TSSWARM_METRICS_ADDR:-127.0.0.1:9323}/metrics" "what Prometheus scrapes" \
    "$LOG" "the daemon's log"
  say "Stop it, and leave nothing behind:  npm stop"
}

stop() {
  require_root
  NODE="$PWD/node_modules/.bin/node"
  [ -x "$TSSWARMD" ] || { say "nothing to stop: nothing has been built here"; return; }
  if pid=$(daemon_pid); then
    "$TSSWARM" leave --force >/dev/null 2>&1
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
  elif [ ! -d "$DATA_ROOT" ]; then
    say "nothing to stop"
    return
  elif [ ! -e "$PID_FILE" ]; then
    fail "$DATA_ROOT was not made by npm start; it is left alone" "tsswarmd teardown removes containers, networks and mounts"
  fi
  "$TSSWARMD" teardown >/dev/null 2>>"$LOG" || fail "clean-up failed: $(tail -n 2 "$LOG")" "its log is $LOG"
  rm -rf "$DATA_ROOT" "$LOG"
  for link in $LINKS; do
    [ "$(readlink "$link")" != "$PWD/dist/bin/$(basename "$link")" ] || rm -f "$link"
  done
  say "stopped; containers, networks, mounts and $DATA_ROOT are gone"
}

case "${1:-start}" in
start) start ;;
stop) stop ;;
*) fail "unknown command $1; known are start and stop" ;;
esac
