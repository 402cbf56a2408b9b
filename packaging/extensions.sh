#!/bin/sh
# Fetches DuckDB extensions, as the signed files that DuckDB's own project puts
# on PyPI, into a directory that `extension_directory` can name. The server itself
# never downloads anything; DuckDB checks each signature when it loads the file.
#
#   packaging/extensions.sh [--to DIR] NAME...      for example: tpch httpfs
#
# DIR is ${DUCKGRES_CACHE:-${XDG_CACHE_HOME:-~/.cache}/duckgres}/extensions
# unless said otherwise. The files come to lie where DuckDB looks for them,
# DIR/v1.5.5/linux_amd64/NAME.duckdb_extension; what is there already stays.
set -eu

version=1.5.5
platform=linux_amd64
wheel_tag=py3-none-manylinux2014_x86_64

# SHA-256 of each wheel.
pin() {
    case $1 in
    ducklake) echo b631ae4dd4bd649b3db35a789dbcc859476fe231ef449b3f03f4fe4e2ef4a946 ;;
    httpfs) echo 84913dbe172ccb54368de2c4a020c38ca8b0e76f99df548f7fac37934cc7826f ;;
    postgres_scanner) echo fea9413d1b5bded7ead650aff91b3d7578c5149d832f666100b362f64404bf18 ;;
    sqlite_scanner) echo 0af00f8e4e6e0562e0fac1bb22d5c4a29d616a664da4194b51cbd26355b9a0c2 ;;
    tpcds) echo fd1ad5b4b5443d0e32d1ebe9122845eb3d2b74466cee2cd56650024e9196f697 ;;
    tpch) echo e734f284fd94971f1241718281111add95457b3c35ec3f19ce39770e654a21e7 ;;
    *) return 1 ;;
    esac
}

die() { printf 'extensions.sh: %s\n' "$*" >&2; exit 1; }

directory=${DUCKGRES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/duckgres}/extensions
if [ "${1:-}" = --to ]; then
    directory=${2:?--to needs a directory}
    shift 2
fi
[ $# -gt 0 ] || die 'which? one or more of: ducklake httpfs postgres_scanner sqlite_scanner tpcds tpch'
target=$directory/v$version/$platform
mkdir -p "$target"
work=$(mktemp -d "$directory/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

for name in "$@"; do
    sha256=$(pin "$name") || die "no pinned extension is called '$name'"
    [ -f "$target/$name.duckdb_extension" ] && continue
    python3 -m pip --version >/dev/null 2>&1 || die 'needs pip (apt-get install python3-pip)'
    package=duckdb-extension-$(printf %s "$name" | tr _ -)
    printf '%s==%s --hash=sha256:%s\n' "$package" "$version" "$sha256" >"$work/requirements"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --require-hashes --dest "$work" --requirement "$work/requirements" || die "could not fetch $package"
    python3 - "$work/duckdb_extension_$name-$version-$wheel_tag.whl" \
        "duckdb_extension_$name/extensions/v$version/$name.duckdb_extension" >"$work/extension" <<'PYTHON' || die "$package holds no $name.duckdb_extension"
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as extension:
    shutil.copyfileobj(extension, sys.stdout.buffer)
PYTHON
    # In one step, so that no half file is ever found.
    mv "$work/extension" "$target/$name.duckdb_extension"
done
printf '%s\n' "$directory"
