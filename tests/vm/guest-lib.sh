# What the scripts that run in a test VM share; `. /lib/guest-lib.sh` at their
# top. They are plain sh, for busybox. When such a script ends, it prints
# `N passed, N failed`, and its exit status is 0 only if nothing failed.
# shellcheck shell=sh

passed=0
failed=0

say() { printf '# %s\n' "$*"; }

# Runs a command or function; what it prints is of interest only if it fails.
check() { # NAME COMMAND...
    _name=$1
    shift
    if "$@" >/tmp/check.log 2>&1; then
        passed=$((passed + 1))
        echo "ok $_name"
    else
        echo "FAIL $_name (status $?): $*"
        failed=$((failed + 1))
        sed 's/^/    /' /tmp/check.log
    fi
}

# For what this kernel cannot do: neither passed nor failed, but said.
skip() { # NAME REASON...
    _name=$1
    shift
    echo "SKIP vm: $_name: $*"
}

_count() {
    _status=$?
    if [ "$_status" != 0 ] && [ "$failed" = 0 ]; then
        echo "FAIL the script ended early (status $_status)"
        failed=1
    fi
    echo "$passed passed, $failed failed"
    exit "$((failed > 0))"
}
trap _count EXIT

# Makes a mediated device and prints its folder in sysfs.
mdev_create() { # PARENT TYPE, such as /sys/class/mtty/mtty mtty-2
    _uuid=$(cat /proc/sys/kernel/random/uuid)
    echo "$_uuid" >"$1/mdev_supported_types/$2/create" || return 1
    echo "/sys/bus/mdev/devices/$_uuid"
}

# mtty-1 has one port and 60 bytes of state, mtty-2 two ports and 96 bytes.
mtty_create() { # [TYPE]
    mdev_create /sys/class/mtty/mtty "${1:-mtty-2}"
}

mdev_remove() { # FOLDER
    echo 1 >"$1/remove"
}

# The number of the device's group: /dev/vfio/N is what to open.
mdev_group() { # FOLDER
    basename "$(readlink "$1/iommu_group")"
}
