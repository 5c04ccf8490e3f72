# shellcheck shell=bash
# What the deploy scripts share: words, waiting, and packages.

say() { printf '%s\n' "$*" >&2; }

# die MESSAGE [NEXT STEP]: every failure ends in words and what to do about it.
die() {
  say "error: $1"
  if [[ -n ${2:-} ]]; then say "  next: $2"; fi
  exit "${EXIT_STATUS:-1}"
}

usage_error() { EXIT_STATUS=2 die "$1" "$0 --help"; }

need_root() {
  [[ $EUID -eq 0 ]] || EXIT_STATUS=2 die "$1 needs root" "sudo $0 ${*:2}"
}

# Same input, same bytes: so an image has the same id on every host.
plain_tar() { tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar "$@"; }

have() { command -v "$1" >/dev/null 2>&1; }

# target_folder: where cargo builds this checkout, wherever that is configured. Needs jq.
target_folder() {
  (cd "$(dirname -- "${BASH_SOURCE[0]}")" && cargo metadata --format-version 1 --no-deps --offline) | jq -r .target_directory
}

# wait_until SECONDS COMMAND…: asks again until COMMAND succeeds; 1 when the time is over.
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < end)) || return 1
    sleep 0.05
  done
}

# install_missing COMMAND=PACKAGE…: installs the packages whose command is missing.
install_missing() {
  local pair packages=()
  for pair in "$@"; do
    have "${pair%%=*}" || packages+=("${pair#*=}")
  done
  ((${#packages[@]} == 0)) || install_packages "${packages[@]}"
}

install_packages() {
  local packages=("$@")
  have apt-get || EXIT_STATUS=2 die "missing: ${packages[*]}, and this machine has no apt-get" \
    "install them with your distribution's package manager and run this again"
  need_root "installing ${packages[*]}"
  say "installing ${packages[*]} …"
  local log
  log=$(mktemp)
  if ! { apt_get install "${packages[@]}" || { apt_get update && apt_get install "${packages[@]}"; }; } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    rm -f "$log"
    EXIT_STATUS=2 die "apt-get could not install ${packages[*]}" "apt-get install ${packages[*]}"
  fi
  rm -f "$log"
}

apt_get() {
  local verb=$1
  shift
  DEBIAN_FRONTEND=noninteractive apt-get "$verb" -q -y -o DPkg::Lock::Timeout=120 --no-install-recommends "$@"
}
