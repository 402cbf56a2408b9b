#!/bin/sh
# Runs each fuzz target, or one of them, for so many seconds:
#
#   fuzz/run.sh SECONDS [TARGET]
#
# Fails when a target crashes, hangs or takes too much memory; what it choked on
# is then in fuzz/artifacts/TARGET, and `fuzz/target/release/TARGET FILE` shows it
# again. Needs a C++ compiler (libFuzzer is compiled), and no nightly Rust. The
# corpora grow in fuzz/target/corpus, from the seeds that src/seeds.rs writes.
set -eu

[ $# -ge 1 ] || { echo 'usage: fuzz/run.sh SECONDS [TARGET]' >&2; exit 2; }
seconds=$1
targets=${2:-startup message handoff tls sql copy parameter}

cd "$(dirname "$0")"
RUSTC_WRAPPER=$PWD/instrument.sh cargo build --quiet --release --target-dir target
# The library's own rpath is for the package's binaries only.
export LD_LIBRARY_PATH="$PWD/../.duckdb"
target/release/seeds target/corpus

for target in $targets; do
    mkdir -p "artifacts/$target"
    log=target/$target.log
    if ! "target/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=4096 \
        -print_final_stats=1 -artifact_prefix="artifacts/$target/" "target/corpus/$target" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        echo "$target: FAILED, see fuzz/artifacts/$target" >&2
        exit 1
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
    echo "$target: $runs executions in $seconds s, $coverage"
done
