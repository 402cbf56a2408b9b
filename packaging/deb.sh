#!/bin/sh
# Makes the .deb, and one with the debug symbols, in target/debian.
#
#   packaging/deb.sh [--profile dev|release] [--version V] [--fast] [--no-build]
#
# --fast compresses less. Two runs on the same programs make the same bytes.
set -eu
cd "$(dirname "$0")/.."

profile=release build=yes fast=
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
while [ $# -gt 0 ]; do
    case $1 in
        --profile) profile=$2; shift ;;
        --version) version=$2; shift ;;
        --fast) fast=--fast ;;
        --no-build) build=no ;;
        *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
tool=$(packaging/tool.sh cargo-deb)
[ "$build" = no ] || cargo build --locked --bins --profile "$profile"
packaging/stage.sh --profile "$profile" --version "$version"
mkdir -p target/debian
for variant in '' '--variant dbgsym'; do
    # shellcheck disable=SC2086 # words, or none
    "$tool" --quiet --no-build --no-strip --deb-version "$version" $fast $variant --output target/debian
done
