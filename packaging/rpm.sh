#!/bin/sh
# Makes the .rpm, and one with the debug symbols, in target/generate-rpm.
#
#   packaging/rpm.sh [--profile dev|release] [--version V] [--fast] [--no-build] [--staged]
#
# --fast does not compress; --staged takes target/package as it is, and makes no package
# with symbols. Two runs on the same programs make the same bytes.
set -eu
cd "$(dirname "$0")/.."

profile=release build=yes fast= stage=yes variants='main --variant=debuginfo'
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
while [ $# -gt 0 ]; do
    case $1 in
        --profile) profile=$2; shift ;;
        --version) version=$2; shift ;;
        --fast) fast=--payload-compress=none ;;
        --no-build) build=no ;;
        --staged) build=no stage=no variants=main ;;
        *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
tool=$(packaging/tool.sh cargo-generate-rpm)
[ "$build" = no ] || cargo build --locked --bins --profile "$profile"
[ "$stage" = no ] || packaging/stage.sh --profile "$profile" --version "$version"
mkdir -p target/generate-rpm

# The newest symbols that are asked for say what is required. The library in its own
# directory is nobody else's, and nothing that rpm should know.
newest() {
    objdump -T target/package/root/usr/bin/* target/package/root/usr/lib/duckgres/*/*.so |
        grep -oE "\b$1_[0-9.]+" | sort -Vu | tail -n 1
}
requires="requires = { systemd = '>= 252', 'libc.so.6($(newest GLIBC))(64bit)' = '', 'libstdc++.so.6($(newest GLIBCXX))(64bit)' = '', 'libgcc_s.so.1($(newest GCC))(64bit)' = '' }"
for variant in $variants; do
    [ "$variant" = main ] || requires="requires = { duckgres = '= $version' }"
    # shellcheck disable=SC2086 # words, or none
    "$tool" generate-rpm $fast ${variant#main} --auto-req disabled --set-metadata "version = '$version'" \
        --set-metadata "$requires" --output target/generate-rpm
done
