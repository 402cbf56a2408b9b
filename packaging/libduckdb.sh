#!/bin/sh
# Brings in DuckDB's official shared library, checks it, and leaves the link
# .duckdb -> its cache directory, which is where the build looks.
#
#   packaging/libduckdb.sh            fetch if needed, then link
#   packaging/libduckdb.sh FILE       take FILE (a libduckdb.so) instead of fetching
#
# Cached in ${DUCKGRES_CACHE:-${XDG_CACHE_HOME:-~/.cache}/duckgres}. The library
# comes from the npm package of DuckDB's own Node bindings when npm is there, and
# from DuckDB's release archive otherwise; both are the same build.
set -eu

version=1.5.5
npm_package='@duckdb/node-bindings-linux-x64@1.5.5-r.5'
release="https://github.com/duckdb/duckdb/releases/download/v$version/libduckdb-linux-amd64.zip"
sha256=fc23f12e376c47be520f75221288281906e7942e8fd6f6ce4849198ba60d0405

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${DUCKGRES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/duckgres}/libduckdb-$version
library=$cache/libduckdb.so

die() { printf 'libduckdb.sh: %s\n' "$*" >&2; exit 1; }
is_right() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$sha256" ]; }

[ "$(uname -sm)" = 'Linux x86_64' ] || die "only Linux on x86_64 is supported, this is $(uname -sm)"

if ! is_right "$library"; then
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    if [ $# -gt 0 ]; then
        cp "$1" "$work/libduckdb.so"
    elif command -v npm >/dev/null; then
        (cd "$work" && npm pack --silent "$npm_package" >/dev/null && tar xzf ./*.tgz package/libduckdb.so \
            && mv package/libduckdb.so .) || die "could not fetch $npm_package with npm"
    elif command -v curl >/dev/null && command -v unzip >/dev/null; then
        (cd "$work" && curl -fsSLO "$release" && unzip -q ./*.zip libduckdb.so) || die "could not fetch $release"
    else
        die 'needs npm, or curl and unzip (apt-get install npm)'
    fi
    is_right "$work/libduckdb.so" ||
        die "the library has SHA-256 $(sha256sum "$work/libduckdb.so" | cut -d' ' -f1), not $sha256"
    mv "$work/libduckdb.so" "$library"
fi
ln -sfn "$cache" "$root/.duckdb"
