# Programs and libraries from Debian's packages, for the scripts that prepare
# the VM's suites. Sourced; needs `set -euo pipefail` and $me, the name that
# messages begin with. Whoever lacks something ends with status 77: skipped.
# shellcheck shell=bash disable=SC2154

say() { printf '%s: %s\n' "$me" "$*" >&2; }
skip() { say "$*"; exit 77; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# Runs quietly; shows what was said only if it fails.
quietly() {
    local log
    log=$(mktemp)
    if "$@" >"$log" 2>&1; then rm -f "$log"; return 0; fi
    cat "$log" >&2
    rm -f "$log"
    return 1
}

# The packages of those PROGRAM:PACKAGE that are missing; a program with a
# slash in it is a file.
missing_packages() { # PROGRAM:PACKAGE...
    local entry
    for entry in "$@"; do
        case $entry in
            /*) [ -e "${entry%%:*}" ] || echo "${entry##*:}" ;;
            *) command -v "${entry%%:*}" >/dev/null || echo "${entry##*:}" ;;
        esac
    done
}

apt_update() {
    say "reading the package lists (apt-get update)"
    as_root true 2>/dev/null || skip "needs root, or sudo without a password, for apt-get update"
    quietly as_root apt-get -qq -o DPkg::Lock::Timeout=600 update || skip "apt-get update failed"
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=600 \
        install --no-install-recommends "$@"
}

install_packages() { # PACKAGE...
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null || skip "lacks $*, and apt-get to install them"
    as_root true 2>/dev/null || skip "lacks $*; install them, or run as root once"
    say "installing $*"
    if ! apt_install "$@" >/dev/null 2>&1; then
        apt_update
        quietly apt_install "$@" || skip "could not install $*"
    fi
}
