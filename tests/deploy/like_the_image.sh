#!/bin/sh
# Runs a command as the image does, without a container engine: its own mounts and processes, a read-only tree that holds
# the system's libraries, the installed environment and nothing of the checkout, user 10001 without home, capabilities
# or new privileges, the command as PID 1, and the image's variables alone. The network is the machine's.
#   like_the_image.sh ENVIRONMENT PYTHON_HOME CACHE [NAME=VALUE ...] -- COMMAND ...
#     ENVIRONMENT   becomes /opt/coldstart       PYTHON_HOME   of its interpreter
#     CACHE         becomes /var/lib/coldstart; `tmpfs`: one of 256 MB
set -eu
if [ "${LIKE_THE_IMAGE:-}" != inside ]; then
    LIKE_THE_IMAGE=inside exec unshare --mount --pid --fork --kill-child=TERM --propagation private "$0" "$@"
fi
environment=$1 home=$2 cache=$3
shift 3
root=$(mktemp -d)
mount -t tmpfs -o mode=755 root "$root"
for folder in /usr /lib /lib64 /bin /sbin "$home"; do
    [ -e "$folder" ] || continue
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
    mount -o remount,bind,ro,nosuid "$root$folder"
done
mkdir -p "$root/opt/coldstart" "$root/var/lib/coldstart" "$root/proc" "$root/dev" "$root/etc"
mount --bind "$environment" "$root/opt/coldstart"
mount -o remount,bind,ro,nosuid "$root/opt/coldstart"
case $cache in
tmpfs) mount -t tmpfs -o size=256m,mode=770,uid=10001,gid=0,nosuid,noexec cache "$root/var/lib/coldstart" ;;
*) mount --bind "$cache" "$root/var/lib/coldstart" ;;
esac
mount -t proc proc "$root/proc"
for device in null zero random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
printf 'coldstart:x:10001:0::/nonexistent:/usr/sbin/nologin\n' >"$root/etc/passwd"
# The model, where it was published.
if [ -n "${MODELS:-}" ]; then
    mkdir -p "$root$MODELS"
    mount --bind "$MODELS" "$root$MODELS"
    mount -o remount,bind,ro "$root$MODELS"
fi
mount -o remount,ro "$root"
exec chroot "$root" /usr/bin/env -i PATH=/opt/coldstart/bin:/usr/local/bin:/usr/bin:/bin LANG=C \
    PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 COLDSTART_PATHS__CACHE=/var/lib/coldstart \
    /usr/bin/setpriv --reuid 10001 --regid 0 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
    /usr/bin/env "$@"
