#!/bin/bash
# Boots systemd in namespaces of its own: mounts, processes, control groups, IPC, host name. The
# network is the machine's, as for any service. Of the control groups it sees one subtree.
#
# Called by `cargo xtask unit` as: boot.sh GROUP ROOT STATE BINARY
set -eu
group=$1 root=$2 state=$3 binary=$4

if [ -z "${PGS_UNIT_INSIDE:-}" ]; then
    mkdir -p "$group"
    echo $$ > "$group/cgroup.procs"
    export PGS_UNIT_INSIDE=1
    exec unshare --mount --pid --cgroup --ipc --uts --fork --kill-child bash "$0" "$@"
fi

mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
# What a booting system sets there would be the machine's.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir -p "$root/dev/pts" "$root/dev/shm" "$root/var/lib/pgs" "$root/old"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=755 tmpfs "$root/var/log"
mount --bind "$state" "$root/var/lib/pgs"
touch "$root/usr/bin/pgs"
mount --bind "$binary" "$root/usr/bin/pgs"
cd "$root"
pivot_root . old
# In a container systemd leaves alone what is the machine's: clock, console, kernel modules.
exec env -i container=pgs-unit PATH=/usr/sbin:/usr/bin:/sbin:/bin /bin/sh -c \
    'umount -l /old
    exec /lib/systemd/systemd --unit=multi-user.target --log-target=journal --show-status=0'
