#!/usr/bin/env bash
# Docker Engine and the image for the tests marked `docker`, on a machine that has neither registry nor engine running.
#
#   tests/containers/engine.sh start   start dockerd, if no engine answers (root)
#   tests/containers/engine.sh image   the image `headcount`, on a base made of this machine's Python
#   tests/containers/engine.sh stop    stop the dockerd that `start` started
set -euo pipefail
cd "$(dirname "$0")/../.."
state=${TMPDIR:-/tmp}/headcount-engine
mkdir -p "$state"

start() {
  docker version >/dev/null 2>&1 && return
  # a dockerd that was killed leaves its number behind, and the next one believes it
  if [ -f /var/run/docker.pid ] && ! kill -0 "$(cat /var/run/docker.pid)" 2>/dev/null; then rm /var/run/docker.pid; fi
  setsid dockerd >"$state/log" 2>&1 </dev/null &
  echo $! >"$state/pid"
  for _ in $(seq 200); do
    docker version >/dev/null 2>&1 && return
    sleep 0.1
  done
  tail -n 20 "$state/log" >&2
  echo "dockerd doesn't answer; its log is $state/log" >&2
  return 1
}

image() {
  .venv/bin/python tests/containers/base_image.py headcount-base
  make --no-print-directory image-offline BASE=headcount-base \
    BASE_PYTHON="$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
}

stop() {
  [ -f "$state/pid" ] || return 0
  local pid
  pid=$(cat "$state/pid")
  rm "$state/pid"
  kill "$pid" 2>/dev/null || return 0
  for _ in $(seq 300); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  echo "dockerd ($pid) doesn't stop" >&2
  return 1
}

"$1"
