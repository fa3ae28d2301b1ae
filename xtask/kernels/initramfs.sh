#!/bin/bash
# Packs what a kernel needs to reach the files of the machine that it is tried on: a shell, and the
# modules for 9p and overlayfs.
#
# Called by `cargo xtask kernels` as: initramfs.sh PACKAGE RELEASE OUTPUT
# PACKAGE is the unpacked kernel package, whose modules were listed by depmod.
set -euo pipefail
package=$1 release=$2 output=$3

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,proc,sys,dev,lower,upper,new,modules}
cp "$(command -v busybox)" "$root/bin/busybox"

# In the order in which they are to be loaded. What is built in has no file.
: > "$root/order"
for module in virtio_pci 9pnet_virtio 9p overlay; do
    modprobe --dirname "$package" --set-version "$release" --show-depends "$module" |
        awk '$1 == "insmod" { print $2 }'
done | awk '!seen[$0]++' | while read -r file; do
    name=$(basename "$file")
    case $name in
        *.xz) name=${name%.xz} unpack='xz --decompress' ;;
        *.zst) name=${name%.zst} unpack='zstd --quiet --decompress' ;;
        *) unpack=cat ;;
    esac
    $unpack < "$file" > "$root/modules/$name"
    echo "$name" >> "$root/order"
done

cat > "$root/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
fail() { echo "pgs-guest: fault $*"; $b poweroff -f; }
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
$b mount -t sysfs sys /sys
while read -r module; do
    $b insmod "/modules/$module" || fail "insmod $module"
done < /order
$b mount -t tmpfs -o size=80% upper /upper
$b mkdir /upper/written /upper/work
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose host /lower ||
    fail 'mount the files of the machine'
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/written,workdir=/upper/work root /new ||
    fail 'mount -t overlay'
for directory in proc sys dev; do
    $b mount --move "/$directory" "/new/$directory"
done
$b mkdir -p /new/usr/lib/modules
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose modules /new/usr/lib/modules ||
    fail 'mount the modules of the kernel'
script=$($b sed -n 's/.*pgs\.guest=\([^ ]*\).*/\1/p' /new/proc/cmdline)
exec $b switch_root /new /bin/bash "$script"
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio --create --format=newc --quiet) | gzip --fast > "$output"
