# shellcheck shell=bash
# One lab host: a machine made of namespaces with its own dockerd, sshd, identity and address.
# Uses from deploy/lab: LAB, INDEX, BRIDGE, SUBNET, NAME, LIVE_RESTORE, STORAGE_DRIVER, SUBNETS, ZONES.

host_dir() { echo "$LAB/hosts/$1"; }
host_letter() { echo "${1#host-}"; }
host_veth() { echo "$BRIDGE-$(host_letter "$1")"; }
host_index() { printf '%d' $(($(printf '%d' "'$(host_letter "$1")") - 97)); }
# Whether it is on the second of two subnets.
host_is_beyond() { ((SUBNETS == 2 && $(host_index "$1") % 2 == 1)); }
host_bridge() { if host_is_beyond "$1"; then echo "${BRIDGE}b"; else echo "$BRIDGE"; fi; }
host_address() {
  local first=11
  if host_is_beyond "$1"; then first=139; fi
  echo "$SUBNET.$((first + $(host_index "$1")))"
}
# Its address, and the way to the other subnet if there is one.
host_network() {
  if ((SUBNETS == 1)); then
    echo "ip addr add $(host_address "$1")/24 dev eth0 && ip link set eth0 up"
    return
  fi
  local other=128 router=126
  if host_is_beyond "$1"; then other=0 router=254; fi
  echo "ip addr add $(host_address "$1")/25 dev eth0 && ip link set eth0 up && ip route add $SUBNET.$other/25 via $SUBNET.$router"
}
# The same over reboots, or neighbours go on sending to the card that is gone.
host_mac() { printf '02:52:53:%02x:%02x:%02x' $((INDEX / 256)) $((INDEX % 256)) "$(host_index "$1")"; }
host_cgroup() { echo "/roadstead-lab/$(basename "$BRIDGE")/$1"; }
host_zone() {
  local letters=abcdefghijklmnopqrstuvwxyz
  echo "zone-${letters:$(($(host_index "$1") % ZONES)):1}"
}

# The process ids below come from files, so a process is only ours when its command line says so.
is_our_process() {
  [[ $1 =~ ^[0-9]+$ && -r /proc/$1/cmdline ]] && [[ $(tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null) == *"$2 "* ]]
}

# host_pid HOST: the host's first process, as the machine sees it; fails when the host is down.
host_pid() {
  local pid=
  read -r pid 2>/dev/null <"$(host_dir "$1")/init.pid" || return 1
  is_our_process "$pid" "$(host_dir "$1")" && echo "$pid"
}

host_is_up() { host_pid "$1" >/dev/null; }
host_is_down() { ! host_is_up "$1"; }

# in_host HOST COMMAND…: runs COMMAND inside the host.
in_host() {
  local pid
  pid=$(host_pid "$1") || die "$1 is not running" "deploy/lab up --name $NAME"
  nsenter -t "$pid" -m -u -n -p -- "${@:2}"
}

engine_socket() { echo "/proc/$(host_pid "$1")/root/run/docker.sock"; }
engine_answers() { curl -fsS -o /dev/null --max-time 2 --unix-socket "$(engine_socket "$1")" http://engine/_ping 2>/dev/null; }

# engine_signal HOST SIGNAL: to dockerd alone; containerd and the containers do not notice.
engine_signal() { in_host "$1" sh -c "kill -$2 \"\$(cat /run/docker.pid)\"" 2>/dev/null; }
engine_is_alive() { engine_signal "$1" 0; }
containerd_is_alive() { in_host "$1" sh -c "kill -0 \"\$(cat /run/docker/containerd/containerd.pid)\"" 2>/dev/null; }
# dockerd takes its containerd along when it dies.
engine_is_gone() { ! engine_is_alive "$1" && ! containerd_is_alive "$1"; }

# sshd_is_at_least MAJOR MINOR: it knows no unknown options. Its client is of the same version.
sshd_is_at_least() {
  [[ $(ssh -V 2>&1) =~ OpenSSH_([0-9]+)\.([0-9]+) ]] &&
    ((BASH_REMATCH[1] > $1 || (BASH_REMATCH[1] == $1 && BASH_REMATCH[2] >= $2)))
}

# What makes the machine itself: made once, kept over reboots.
host_prepare() {
  local host=$1 dir
  dir=$(host_dir "$host")
  mkdir -p "$dir"/{run,lib/docker,log,tmp,etc/ssh,etc/docker}
  (umask 077 && mkdir -p "$dir/root")
  chmod 1777 "$dir/tmp"
  [[ -s $dir/etc/machine-id ]] || tr -d - </proc/sys/kernel/random/uuid >"$dir/etc/machine-id"
  # Root without a password but not locked: sshd without PAM refuses a locked account.
  (umask 077 && echo 'root:*:19000:0:99999:7:::' >"$dir/etc/shadow")
  [[ -s $dir/etc/ssh/ssh_host_ed25519_key ]] ||
    ssh-keygen -q -t ed25519 -N '' -C "root@$host" -f "$dir/etc/ssh/ssh_host_ed25519_key"
  cp "$LAB/id_ed25519.pub" "$dir/etc/ssh/authorized_keys"
  cat >"$dir/etc/ssh/sshd_config" <<CONFIG
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile /run/sshd.pid
AuthorizedKeysFile /etc/ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
UseDNS no
MaxSessions 10
MaxStartups 200:30:400
AllowStreamLocalForwarding yes
AllowTcpForwarding yes
PrintMotd no
Subsystem sftp internal-sftp
CONFIG
  # Tests of refused log-ins must not lock out this machine.
  if sshd_is_at_least 9 8; then echo "PerSourcePenalties no" >>"$dir/etc/ssh/sshd_config"; fi
  # An own cgroup parent, so that `down` knows which groups are this lab's.
  cat >"$dir/etc/docker/daemon.json" <<CONFIG
{
  "storage-driver": "$STORAGE_DRIVER",
  "live-restore": $LIVE_RESTORE,
  "log-level": "warn",
  "exec-opts": ["native.cgroupdriver=cgroupfs"],
  "features": { "containerd-snapshotter": false },
  "insecure-registries": ["198.18.0.0/15"],
  "cgroup-parent": "$(host_cgroup "$host")"
}
CONFIG
}

# host_start HOST: brings a host that is down up to an engine that answers.
host_start() {
  local host=$1 dir pid veth
  dir=$(host_dir "$host")
  veth=$(host_veth "$host")
  # What a machine forgets at boot. Stale process ids in /run would name other processes.
  rm -rf "$dir/run" "$dir/tmp" "$dir/init.pid" "$dir/init.pid.new"
  host_prepare "$host"
  mkdir -p "$dir/run/sshd" "$dir/run/lock"

  # The lock's descriptor (9) must not live on in a host.
  setsid unshare --mount --uts --pid --net --fork --kill-child=KILL -- \
    "$LIB/host-init.sh" "$dir" "$host" >/dev/null 2>>"$dir/log/init.log" 9>&- &
  disown
  echo $! >"$dir/parent.pid"
  wait_until 10 host_is_up "$host" || host_failed "$host" "its first process did not start" init.log
  pid=$(host_pid "$host")

  ip link del "$veth" 2>/dev/null || true
  ip link add "$veth" type veth peer name eth0 address "$(host_mac "$host")" netns "$pid" ||
    host_failed "$host" "its network link could not be made" init.log
  ip link set "$veth" master "$(host_bridge "$host")" up
  in_host "$host" sh -c "ip link set lo up && $(host_network "$host")" ||
    host_failed "$host" "its address could not be set" init.log
  if [[ -e $dir/cut ]]; then ip link set "$veth" down; fi

  in_host "$host" /usr/sbin/sshd -E /var/log/sshd.log 9>&- || host_failed "$host" "sshd did not start" sshd.log
  engine_start "$host"
}

# engine_start HOST: starts dockerd, which starts its own containerd, and waits for an answer.
engine_start() {
  in_host "$1" sh -c 'rm -f /run/docker.pid
    setsid /usr/sbin/dockerd </dev/null >>/var/log/dockerd.log 2>&1 &' 9>&-
  wait_until 60 engine_answers "$1" || host_failed "$1" "dockerd did not answer within 60 s" dockerd.log
}

host_failed() {
  local log
  log=$(host_dir "$1")/log/$3
  if [[ -s $log ]]; then tail -n 5 "$log" | sed 's/^/  | /' >&2; fi
  die "$1: $2" "read $log, then deploy/lab down --name $NAME and up again"
}

# host_stop HOST: like pulling the plug. The namespaces, and all mounts in them, go with the processes.
host_stop() {
  local host=$1 dir pid
  dir=$(host_dir "$host")
  if pid=$(host_pid "$host"); then kill -KILL "$pid" 2>/dev/null || true; fi
  # Its parent is the only process of a host that failed before it could say its own id.
  if read -r pid 2>/dev/null <"$dir/parent.pid" && is_our_process "$pid" "$dir"; then
    kill -KILL "$pid" 2>/dev/null || true
  fi
  wait_until 20 host_is_down "$host" || die "$host does not stop" "ps -ef | grep $dir"
  ip link del "$(host_veth "$host")" 2>/dev/null || true
  wait_until 20 host_cgroups_removed "$host" ||
    say "warning: control groups of $host are still busy: /sys/fs/cgroup/*$(host_cgroup "$host")"
}

# Groups empty a moment after their processes have died, hence to be asked again.
host_cgroups_removed() {
  local root left=0
  for root in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [[ -d $root$(host_cgroup "$1") ]] || continue
    find "$root$(host_cgroup "$1")" -depth -type d -exec rmdir {} + 2>/dev/null || left=1
  done
  ((left == 0))
}

host_manifest() {
  local host=$1 key
  key=$(cut -d' ' -f1,2 "$(host_dir "$host")/etc/ssh/ssh_host_ed25519_key.pub")
  cat <<MANIFEST
apiVersion: roadstead/v1
kind: Host
metadata: { name: $host, labels: { availability-zone: $(host_zone "$host") } }
spec:
  address: $(host_address "$host")
  ssh: { user: root, port: 22, identityFile: "$LAB/id_ed25519", hostKey: "$key" }
MANIFEST
}
