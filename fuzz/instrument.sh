#!/bin/sh
# What cargo runs instead of rustc while it builds the fuzz targets: it adds the
# coverage counters that libFuzzer steers by, to duckgres and to no other crate.
# (-Cpasses=sancov-module needs no nightly compiler, unlike -Zsanitizer.)
case " $* " in
*' --crate-name duckgres '*)
    exec "$@" -Cpasses=sancov-module \
        -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-trace-compares \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table
    ;;
esac
exec "$@"
