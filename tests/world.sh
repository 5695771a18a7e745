#!/bin/sh
# world.sh [--pid-file FILE] COMMAND...: runs COMMAND as root in a world of its own, and leaves nothing behind.
#
# The world is a set of namespaces (network, mounts, processes, host name, IPC). In it only the loopback device
# exists, /run and the bpffs are empty, and copies of passwd, group, hosts and resolv.conf, with the users and names that the tests
# need, lie over the real ones. Nothing outside is touched, and every process in it ends with COMMAND.
#
# COMMAND finds its folder in $KIDOBAN_WORLD. --pid-file: there stands the number, outside, of the process that holds
# the world.
set -eu

inside() {
    dir=$KIDOBAN_WORLD
    mount -t tmpfs -o mode=0755 none /run
    mkdir -p /run/lock
    mount -t bpf -o mode=0700 none /sys/fs/bpf

    cp /etc/passwd "$dir/passwd"
    cp /etc/group "$dir/group"
    sed -i '/^kidoban/d' "$dir/passwd" "$dir/group"
    echo 'kidoban:x:64010:' >>"$dir/group"
    id=64011
    # As packaging/kidoban.sysusers: a group each, and none is in the group that may use the control sockets.
    for role in submit vault guard spool deliver gate; do
        echo "kidoban-$role:x:$id:" >>"$dir/group"
        echo "kidoban-$role:x:$id:$id::/nonexistent:/usr/sbin/nologin" >>"$dir/passwd"
        id=$((id + 1))
    done
    echo 'kidoban-mailbox:x:64020:64020::/nonexistent:/usr/sbin/nologin' >>"$dir/passwd"
    echo 'kidoban-mailbox:x:64020:' >>"$dir/group"

    cat >"$dir/hosts" <<HOSTS
127.0.0.1 localhost world
::1 localhost
127.0.0.1 mail.example.org mail.example.net
fd00::1 mail.example.org mail.example.net
127.0.0.1 mail4.example.org
fd00::1 mail6.example.org
HOSTS
    echo 'nameserver 127.0.0.53' >"$dir/resolv.conf"
    chmod 644 "$dir/passwd" "$dir/group" "$dir/hosts" "$dir/resolv.conf"
    for file in passwd group hosts resolv.conf; do
        mount --bind "$dir/$file" "$(readlink -f "/etc/$file")"
    done

    hostname world
    ip link set lo up
    # One IPv4 address that is not loopback: resolvers told AI_ADDRCONFIG find no IPv4 name without it.
    ip address add 192.0.2.1/32 dev lo
    {
        for host in 1 25 26 27 28 53; do
            echo "address add fd00::$host/128 dev lo nodad"
        done
        # Clients of the wire rows: a network each.
        for net in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24; do
            echo "address add fd00:0:$net::7/128 dev lo nodad"
        done
    } | ip -6 -batch -
    unset KIDOBAN_WORLD_STAGE
    # Not exec: this shell is process 1 here, and buries the orphans.
    status=0
    "$@" || status=$?
    exit "$status"
}

if [ "${KIDOBAN_WORLD_STAGE:-}" = inside ]; then
    inside "$@"
fi

pid_file=
if [ "${1:-}" = --pid-file ]; then
    pid_file=$2
    shift 2
fi
if [ $# -eq 0 ]; then
    echo "usage: tests/world.sh [--pid-file FILE] COMMAND..." >&2
    exit 64
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "tests/world.sh: needs root, to make namespaces and to drop to several users" >&2
    exit 77
fi

KIDOBAN_WORLD=$(mktemp -d "${TMPDIR:-/tmp}/kidoban-world.XXXXXX")
export KIDOBAN_WORLD
chmod 755 "$KIDOBAN_WORLD"
holder=
# Called by the trap.
# shellcheck disable=SC2317
clean() {
    [ -z "$holder" ] || kill "$holder" 2>/dev/null || true
    [ -z "$holder" ] || wait "$holder" 2>/dev/null || true
    [ -z "$pid_file" ] || rm -f "$pid_file"
    rm -rf "$KIDOBAN_WORLD"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

KIDOBAN_WORLD_STAGE=inside unshare --net --mount --pid --uts --ipc --fork --kill-child --mount-proc "$0" "$@" <&0 &
holder=$!
[ -z "$pid_file" ] || echo "$holder" >"$pid_file"
status=0
wait "$holder" || status=$?
holder=
exit "$status"
