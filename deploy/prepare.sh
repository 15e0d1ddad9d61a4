# Sourced by the scripts that a fresh machine runs first: installs what is missing and builds. Says clearly what it
# cannot do. Expects to be in the project's folder.

# Debian packages: what a node needs, and what the demonstration's image is made from.
NODE_PACKAGES="containerd runc crun busybox-static"
# What only the tests need: other firewalls, a registry, Prometheus, etcd, openssl, CFSSL, and the tools that look at networks from outside.
TEST_PACKAGES="wireguard-go wireguard-tools docker.io ufw firewalld iptables dbus docker-registry prometheus etcd-server etcd-client openssl golang-cfssl nftables iproute2 procps"

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$1" >&2; [ $# -lt 2 ] || printf '       %s\n' "$2" >&2; exit 1; }

require_linux() {
  [ "$(uname -s)" = Linux ] || fail "tsswarm runs on Linux only, this is $(uname -s)"
  case "$(uname -m)" in x86_64 | aarch64) ;; *) fail "no Node.js is packaged for $(uname -m); x86_64 and aarch64 are known" ;; esac
  command -v npm >/dev/null || fail "npm is missing" "apt-get install npm"
}

require_root() { [ "$(id -u)" = 0 ] || fail "this needs root: containers, namespaces and mounts are made" "run it again with sudo"; }

require_kernel() {
  for namespace in mnt net pid ipc uts; do
    [ -e "/proc/self/ns/$namespace" ] || fail "this kernel has no $namespace namespaces"
  done
  grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || fail "this kernel has no overlayfs"
  [ -d /sys/fs/cgroup ] && grep -q cgroup /proc/mounts || fail "no cgroup hierarchy is mounted on /sys/fs/cgroup"
}

# Installs those of the named Debian packages that are not there yet.
install_debian() {
  missing=
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  command -v apt-get >/dev/null || fail "missing:$missing" "install them with this system's package manager"
  say "installing Debian packages:$missing"
  export DEBIAN_FRONTEND=noninteractive
  apt_log=$(mktemp)
  # policy-rc.d: packages must not start services of their own here; the daemon starts the containerd it needs.
  policy=/usr/sbin/policy-rc.d
  made_policy=
  if [ ! -e "$policy" ]; then printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && made_policy=1; fi
  { apt-get install -y --no-install-recommends $missing ||
    { apt-get update && apt-get install -y --no-install-recommends $missing; }; } >"$apt_log" 2>&1
  status=$?
  [ -z "$made_policy" ] || rm -f "$policy"
  [ $status = 0 ] || { tail -n 20 "$apt_log" >&2; rm -f "$apt_log"; fail "apt-get could not install:$missing"; }
  rm -f "$apt_log"
}

# npm packages as the lock file says; Node 24 is one of them.
install_npm() {
  if [ ! -x node_modules/.bin/node ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    say "installing npm packages"
    npm_log=$(mktemp)
    # Not "npm ci": it insists on lock entries for the optional packages of platforms that a registry may not have.
    npm install --no-save --no-audit --no-fund --ignore-scripts >"$npm_log" 2>&1 || { tail -n 20 "$npm_log" >&2; fail "npm could not install the packages"; }
    rm -f "$npm_log"
  fi
  NODE="$PWD/node_modules/.bin/node"
  "$NODE" -e '' 2>/dev/null || fail "the packaged Node.js does not start on this machine" "$("$NODE" -e '' 2>&1 | head -n 1)"
}

# Bundles into dist/ when a source is newer than the last bundle.
build() {
  if [ ! -x dist/bin/tsswarmd ] || [ -n "$(find bin core proto rpc manager agent node cli deploy package-lock.json -newer dist/bin/tsswarmd -name '*.[tjs]*' -print -quit)" ]; then
    say "building"
    "$NODE" deploy/build.ts || fail "the build failed"
  fi
}
