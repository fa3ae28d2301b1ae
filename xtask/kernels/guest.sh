#!/bin/bash
# The first process under the other kernel. Its root is the machine's own, read-only; what is
# written stays in the emulated machine's memory.
#
# Beside it lie `environment`, the lines of an `env`, and `parts`: what is run, by the function of
# that name below.
set -u
here=$(dirname "$(readlink -f "$0")")
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root

# What the kernel says of processes that it ended, and of itself.
trouble='oom-kill|Killed process|segfault|traps:|general protection|BUG:|WARNING:|hung task'

say() { echo "pgs-guest: $*"; }
off() {
    sync
    echo o > /proc/sysrq-trigger
    sleep 60
}
fault() {
    say "fault $*"
    off
}

# NAME SECONDS COMMAND…
part() {
    local name=$1 seconds=$2
    shift 2
    say "begin $name"
    dmesg --clear
    timeout --kill-after=10 "$seconds" "$@" 2>&1
    local status=$?
    # Why a process of a container ended, only the kernel knows.
    dmesg --notime | grep -E "$trouble" | sed 's/^/the kernel: /'
    say "end $name $status"
}

mkdir -p /dev/pts /dev/shm /sys/fs/cgroup /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/lock /var/lib/docker
ip link set lo up
ulimit -n 100000 || fault 'ulimit -n 100000'
set -a
# shellcheck source=/dev/null
. "$here/environment" || fault 'read the environment'
set +a

say "kernel $(uname -r)"
# Docker's own overlays need something else than an overlay below them; and what is written to a
# tmpfs counts for the container that wrote it, against its bound, where a file system's pages can
# be given back.
modprobe brd rd_nr=1 rd_size=$((3 * 1024 * 1024)) || fault 'modprobe brd'
mkfs.ext4 -q -O ^has_journal /dev/ram0 || fault 'mkfs.ext4 /dev/ram0'
mount -t ext4 /dev/ram0 /var/lib/docker || fault 'mount -t ext4 /dev/ram0'
dockerd --log-level error > /tmp/dockerd.log 2>&1 &
for _ in $(seq 120); do
    docker info > /dev/null 2>&1 && break
    sleep 1
done
docker load --quiet --input "$here/image.tar" > /dev/null ||
    fault "docker load: $(tail -n 3 /tmp/dockerd.log)"
say 'ready'
# shellcheck source=/dev/null
. "$here/parts"
say 'done'
off
