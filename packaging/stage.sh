#!/bin/sh
# Lays out what the packages hold, once for both, in target/package:
#
#   root      the files where they will be        debug     debug symbols, likewise
#   deb, rpm  the packages' scripts
#
#   packaging/stage.sh [--profile dev|release] [--version V]
#
# What is in packaging/man, packaging/completions and packaging/monitoring is taken in
# as it is there. The programs must have been built.
set -eu
cd "$(dirname "$0")/.."

profile=release version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
while [ $# -gt 0 ]; do
    case $1 in
        --profile) profile=$2 ;;
        --version) version=$2 ;;
        *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift 2
done
built=target/$profile
[ "$profile" != dev ] || built=target/debug
duckdb=$(sed -n '/metadata.duckdb/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
stage=target/package
root=$stage/root
umask 022
rm -rf "$stage"
mkdir -p "$stage/deb" "$stage/rpm"

# lay MODE FILE PLACE
lay() { install -D -m "$1" "$2" "$root/$3"; }

# The library first, and in a directory of its version: packages are unpacked in this
# order, and the old version's goes last. No program ever meets another's.
lay 644 .duckdb/libduckdb.so "usr/lib/duckgres/$duckdb/libduckdb.so"
for program in duckgres duckgres-worker; do
    lay 755 "$built/$program" "usr/bin/$program"
    id=$(readelf -n "$root/usr/bin/$program" | sed -n 's/.*Build ID: //p')
    debug=$stage/debug/usr/lib/debug/.build-id/$(printf %.2s "$id")/${id#??}.debug
    mkdir -p "$(dirname "$debug")"
    objcopy --only-keep-debug --compress-debug-sections "$root/usr/bin/$program" "$debug"
    chmod 644 "$debug"
    strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/$program"
    # Where the library is sought is where it is.
    readelf -d "$root/usr/bin/$program" | grep -qF "[\$ORIGIN/../lib/duckgres/$duckdb]" ||
        { echo "stage.sh: $program does not look for libduckdb $duckdb" >&2; exit 1; }
done

for unit in systemd/*.service systemd/*.socket systemd/*.target; do
    lay 644 "$unit" "usr/lib/systemd/system/${unit#systemd/}"
done
lay 644 systemd/duckgres.sysusers usr/lib/sysusers.d/duckgres.conf
lay 644 systemd/duckgres.tmpfiles usr/lib/tmpfiles.d/duckgres.conf
lay 644 systemd/duckgres.preset usr/lib/systemd/system-preset/50-duckgres.preset
lay 640 packaging/duckgres.yaml etc/duckgres/duckgres.yaml

doc=usr/share/doc/duckgres
lay 644 packaging/doc/copyright $doc/copyright
for example in systemd/examples/*; do lay 644 "$example" "$doc/examples/${example##*/}"; done
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
printf 'duckgres (%s) stable; urgency=medium\n\n  * What is new stands in the history of the sources.\n\n -- %s  %s\n' \
    "$version" 'The duckgres authors <duckgres@localhost>' "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" |
    gzip -9n >"$stage/changelog.gz"
lay 644 "$stage/changelog.gz" $doc/changelog.gz
for page in packaging/man/*.[1-8]; do
    gzip -9n <"$page" >"$stage/page.gz"
    lay 644 "$stage/page.gz" "usr/share/man/man${page##*.}/${page##*/}.gz"
done
for file in packaging/completions/*; do
    case ${file##*/} in
        *.bash) place=bash-completion/completions/$(basename "$file" .bash) ;;
        *.fish) place=fish/vendor_completions.d/${file##*/} ;;
        # zsh's is where the distribution has it; see Cargo.toml.
        *) continue ;;
    esac
    lay 644 "$file" "usr/share/$place"
done
for file in packaging/monitoring/*; do
    lay 644 "$file" "usr/share/duckgres/monitoring/${file##*/}"
done

for script in packaging/scripts/*.*; do
    name=${script##*/}
    case $name in deb.*|rpm.*) ;; *) continue ;; esac
    {
        printf '#!/bin/sh\nset -e\n\n'
        cat packaging/scripts/functions.sh
        printf '\n'
        cat "$script"
    } >"$stage/${name%%.*}/${name#*.}"
    chmod 755 "$stage/${name%%.*}/${name#*.}"
done
