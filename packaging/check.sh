#!/bin/sh
# Checks the packages: two runs make the same bytes, and neither lintian nor rpmlint has
# anything to say that packaging/lintian and packaging/rpmlint.toml give no reason for.
#
#   packaging/check.sh [--profile dev|release]
#
# The programs must have been built.
set -eu
cd "$(dirname "$0")/.."
[ "${1:-}" = --profile ] || set -- --profile dev

need() {
    command -v "$1" >/dev/null && return
    {
        apt-get update -qq &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1"
    } >/dev/null 2>&1 && return
    echo "skipped: $1 is missing, and apt-get does not bring it in"
    return 1
}

both() {
    rm -rf target/debian target/generate-rpm
    packaging/deb.sh "$@" --fast --no-build >/dev/null
    packaging/rpm.sh "$@" --fast --no-build
    sha256sum target/debian/*.deb target/generate-rpm/*.rpm
}
first=$(both "$@")
second=$(both "$@")
printf '%s\n' "$first"
[ "$first" = "$second" ] || { printf 'another time:\n%s\n' "$second"; exit 1; }

! need lintian || lintian --allow-root --fail-on error,warning --tag-display-limit 0 target/debian/*.deb
for page in man1/duckgres.1 man8/duckgres-worker.8; do
    [ -e "target/package/root/usr/share/man/$page.gz" ] || { echo "$page is missing"; exit 1; }
done
! need rpmlint || for package in target/generate-rpm/*.rpm; do
    rpmlint --strict --config packaging/rpmlint.toml "$package"
done
