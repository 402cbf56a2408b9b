# What the scripts of both packages do; packaging/stage.sh puts it at their beginnings.
# Nothing here makes the package manager fail: a server that goes on as it was is no
# reason to leave a package half installed, but one to say so.

UNIT=/usr/lib/systemd/system/duckgres.service
# Between the scripts of one installation: `install`, or the checksum of the unit file
# that the running control plane was started with. In /run, because a boot starts
# everything anew and makes it untrue.
NOTE=/run/duckgres.package

say() { printf 'duckgres: %s\n' "$*" >&2; }

# Not so in a chroot, or while an image is built.
systemd_runs() { [ -d /run/systemd/system ]; }

# Debian has a policy of its own, about who may be started (policy-rc.d).
start_unit() {
    if command -v deb-systemd-invoke >/dev/null; then
        deb-systemd-invoke start "$1"
    else
        systemctl start "$1"
    fi
}

# Before files are replaced, and before there are any.
note_installation() {
    systemd_runs || return 0
    echo install >"$NOTE"
}
note_upgrade() {
    systemd_runs && systemctl --quiet is-active duckgres.service && [ -e "$UNIT" ] || return 0
    # One that is there is of an upgrade that has not come to its end: the control
    # plane still is as it says.
    [ -e "$NOTE" ] || sha256sum <"$UNIT" >"$NOTE"
}

# Users, directories, units: everything up to a start.
prepare() {
    systemd-sysusers duckgres.conf
    # Of what is not ours in a directory it may complain.
    systemd-tmpfiles --create duckgres.conf || :
    ! systemd_runs || systemctl daemon-reload || :
}

enable_units() {
    systemctl --quiet preset duckgres.target duckgres.socket duckgres.service \
        duckgres-worker@1.socket duckgres-worker@1.service || :
}

# Starts, or has what runs go on with the new files.
take_effect() {
    systemd_runs || return 0
    note=
    [ ! -e "$NOTE" ] || note=$(cat "$NOTE")
    if [ "$note" = install ]; then
        rm -f "$NOTE"
        start_all
    else
        renew "$note"
    fi
}

start_all() {
    systemctl --quiet is-enabled duckgres.target || return 0
    start_unit duckgres.target || :
    systemctl --quiet is-active duckgres.service && return 0
    say "is installed and does not run: has another program, PostgreSQL perhaps, port 5432?"
    say "'systemctl status duckgres.socket duckgres.service' says more. Another port:"
    say "/usr/share/doc/duckgres/examples/another-address.conf; then 'systemctl start duckgres.target'."
}

renew() {
    if systemctl --quiet is-active duckgres.service; then
        for program in duckgres duckgres-worker; do
            # What cannot be started at all need not be tried under load.
            if ! reason=$("/usr/bin/$program" --version 2>&1); then
                goes_on "/usr/bin/$program cannot be started. $reason"
                return 0
            fi
        done
        # A reload tries the new version out, and keeps the old one if that is no good.
        if ! systemctl reload duckgres.service; then
            goes_on "$(journalctl --unit duckgres.service --lines 5 --output cat 2>/dev/null || :)"
            return 0
        fi
        # A successor has the environment and the limits of the unit as it was.
        if [ -n "$1" ] && [ "$1" != "$(sha256sum <"$UNIT")" ]; then
            systemctl restart duckgres.service || :
        fi
        rm -f "$NOTE"
    fi
    # One after the other, each when its transactions are done: nobody waits for that here.
    systemctl --no-block try-restart 'duckgres-worker@*.service' || :
}

goes_on() {
    say "THE NEW VERSION DOES NOT START. The old one goes on, and nobody has noticed:"
    printf '%s\n' "$1" | sed 's/^/duckgres:   /' >&2
    say "When the reason is gone: systemctl reload duckgres && systemctl restart 'duckgres-worker@*.service'"
    say "Or install the package of before again. Until then, what crashes starts as the new version."
}

# All of it, sessions too; what they have begun may end.
stop_all() {
    systemd_runs || return 0
    systemctl stop duckgres.target duckgres.service duckgres.socket \
        'duckgres-worker@*.service' 'duckgres-worker@*.socket' || :
}

forget_units() {
    ! systemd_runs || systemctl daemon-reload || :
    rm -f "$NOTE"
}

# What `systemctl enable` has made. Drop-ins are the operator's, and stay.
disable_units() {
    [ ! -d /etc/systemd/system ] || find /etc/systemd/system -mindepth 2 -maxdepth 2 -type l \
        \( -name 'duckgres.*' -o -name 'duckgres-worker@*' \) -path '*.wants/*' -delete
}
