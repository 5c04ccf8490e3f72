#!/usr/bin/env bash
# The first process of a lab host, started in its own mount, UTS, PID and network namespaces.
# It covers every place by which two hosts could see each other, then only waits: when it dies, the
# kernel ends everything in the host. usage: host-init.sh HOST_DIR HOST_NAME
set -euo pipefail
dir=$1
name=$2

exec </dev/null >>"$dir/log/init.log" 2>&1 3>"$dir/init.pid.new"
# /proc is still the machine's, so this is the process id as the machine sees it.
read -r pid _ </proc/self/stat

hostname "$name"
# Seen through /mnt, because the folder may lie under a place that is about to be covered.
mount --bind "$dir" /mnt
mount --bind /mnt/run /run
mount --bind /mnt/lib /var/lib
mount --bind /mnt/log /var/log
mount --bind /mnt/root /root
mount --bind /mnt/tmp /tmp
mount --bind /mnt/etc/ssh /etc/ssh
mount --bind /mnt/etc/docker /etc/docker
# A minimal system has none, and then neither have its hosts.
if [[ -e /etc/machine-id ]]; then mount --bind /mnt/etc/machine-id /etc/machine-id; fi
mount --bind /mnt/etc/shadow /etc/shadow
mv /mnt/init.pid.new /mnt/init.pid
umount /mnt
mount -t proc proc /proc
echo "$pid" >&3
exec 3>&-

cd /
# A shell reaps the orphans that are left to it, as a first process must.
while :; do
  sleep infinity &
  wait $! || true
done
