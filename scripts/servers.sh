#!/bin/sh
# Installs, where they are missing, the programs that tests run beside Python: a Redis server and Chromium.
set -eu
missing=""
for program in redis-server chromium; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null 2>&1 || {
    echo "The tests need$missing, which this script installs by apt-get only. Install them as your system does." >&2
    exit 1
}
as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo"
$as_root apt-get update
# shellcheck disable=SC2086  # each program is a word
$as_root apt-get install -y --no-install-recommends $missing
