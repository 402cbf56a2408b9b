#!/bin/sh
# tool.sh CRATE: prints the path of a cargo subcommand, brought in from crates.io if it
# is not there yet. Kept in ${DUCKGRES_CACHE:-${XDG_CACHE_HOME:-~/.cache}/duckgres}/tools.
set -eu
crate=$1
case $crate in
    cargo-deb) version=3.8.0 ;;
    cargo-generate-rpm) version=0.21.1 ;;
    *) echo "tool.sh: no version of '$crate' is pinned" >&2; exit 2 ;;
esac
home=${DUCKGRES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/duckgres}/tools/$crate-$version
[ -x "$home/bin/$crate" ] ||
    cargo install --quiet --locked --version "=$version" --root "$home" "$crate" >&2
printf '%s\n' "$home/bin/$crate"
