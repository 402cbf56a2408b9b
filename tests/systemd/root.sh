#!/bin/sh
# root.sh SUITE DIRECTORY: makes a small Debian with systemd, once; later calls find it there.
# Packages come from where this machine's apt has Debian from, if it has.
set -eu
suite=$1 directory=$2
mkdir -p "$(dirname "$directory")"
exec 9>"$directory.lock"
flock 9
[ ! -e "$directory/complete" ] || exit 0
rm -rf "$directory"
archive=$(apt-get indextargets --format '$(REPO_URI)' \
    'Identifier: Packages' 'Origin: Debian' 'Label: Debian' 'Component: main' | head -n 1)
# shellcheck disable=SC2086 # no archive is no word
mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,dbus,libstdc++6,postgresql-client,rpm \
    --setup-hook='mkdir -p "$1/opt/duckgres"' "$suite" "$directory" $archive >&2
# The programs are bound to /opt/duckgres as a directory, so that a test can put
# another version there; the units expect them in /usr/bin.
for program in duckgres duckgres-worker; do
    ln -s "/opt/duckgres/bin/$program" "$directory/usr/bin/$program"
done
rm -rf "$directory"/var/cache/apt/* "$directory"/var/lib/apt/lists/*
touch "$directory/complete"
