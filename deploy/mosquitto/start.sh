#!/bin/sh
# Start Mosquitto when the files with its accounts are there, and have it read them again when they change.
set -u
config=$1
accounts=$2

while [ ! -s "$accounts/acl" ]; do sleep 1; done
mosquitto -c "$config" &
mosquitto=$!
trap 'kill "$mosquitto"' INT TERM
read_files=$(cat "$accounts/passwords" "$accounts/acl" | cksum)
while kill -0 "$mosquitto" 2>/dev/null; do
  sleep 1 &
  wait $!
  files=$(cat "$accounts/passwords" "$accounts/acl" | cksum)
  if [ "$files" != "$read_files" ]; then
    read_files=$files
    kill -HUP "$mosquitto"
  fi
done
wait "$mosquitto"
