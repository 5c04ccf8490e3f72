# shellcheck shell=bash
# The demo image: FROM scratch around one static program, packed without any engine.
# Uses from deploy/lab: REPO, NAME, hosts, engine_socket.

# demo_binary: builds examples/demo.rs once per content and prints the program's path.
demo_binary() {
  local source=$REPO/examples/demo.rs dir
  have rustc || die "rustc is missing, which builds the demo program" "install Rust: https://rustup.rs"
  dir=${CARGO_TARGET_DIR:-$REPO/target}/demo/$({ cat "$source"; rustc -vV; } | sha256sum | cut -c1-16)
  if [[ ! -x $dir/demo ]]; then
    say "building the demo program …"
    mkdir -p "$dir"
    rustc -O --edition 2024 -C target-feature=+crt-static -C panic=abort -C strip=symbols \
      -o "$dir/demo.$$" "$source" >&2 || die "examples/demo.rs did not compile" "the compiler's message is above"
    mv "$dir/demo.$$" "$dir/demo"
  fi
  echo "$dir/demo"
}

# image_archive VERSION FILE: writes what `docker load` reads.
image_archive() {
  local version=$1 file=$2 work binary arch config
  binary=$(demo_binary)
  case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) die "the demo image knows x86_64 and aarch64, not $(uname -m)" "use an image of your own" ;;
  esac
  work=$(mktemp -d)
  mkdir "$work/root"
  install -m 755 "$binary" "$work/root/demo"
  plain_tar -C "$work/root" -f "$work/layer.tar" demo
  config=$(printf '{"architecture":"%s","os":"linux","created":"1970-01-01T00:00:00Z","config":{"Env":["DEMO_VERSION=%s"],"Entrypoint":["/demo"],"ExposedPorts":{"80/tcp":{}}},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$arch" "$version" "$(sha256sum <"$work/layer.tar" | cut -d' ' -f1)")
  printf '%s' "$config" >"$work/config.json"
  printf '[{"Config":"config.json","RepoTags":["roadstead/demo:%s"],"Layers":["layer.tar"]}]' "$version" >"$work/manifest.json"
  plain_tar -C "$work" -f "$file" config.json layer.tar manifest.json
  rm -rf "$work"
}

lab_image() {
  local version=$1 archive host pids=() failed=0
  [[ $version =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$ ]] || usage_error "'$version' cannot be an image's tag"
  archive=$(mktemp)
  image_archive "$version" "$archive"
  for host in $(hosts); do
    image_load "$host" "$archive" &
    pids+=($!)
  done
  for host in "${pids[@]}"; do wait "$host" || failed=1; done
  rm -f "$archive"
  ((failed == 0)) || exit 1
  echo "roadstead/demo:$version"
}

image_load() {
  local answer
  # The answer tells what happened: a refused archive is still a 200.
  answer=$(curl -sS --max-time 120 --unix-socket "$(engine_socket "$1")" -H 'Content-Type: application/x-tar' \
    --data-binary "@$2" 'http://engine/images/load?quiet=1' 2>&1) || true
  [[ $answer == *'Loaded image'* ]] || die "$1 did not take the image: ${answer:-no answer}" \
    "deploy/lab up --name $NAME, then image again"
}
