#!/bin/sh
# Installs what the tests need from Debian, where that is possible: root and apt. Anything else is told in one
# line and left to the reader. "program:package", one each; extend the list when a test needs another program.
set -eu
NEEDED="${NEEDED:-setpriv:util-linux setsid:util-linux unshare:util-linux curl:curl dockerd:docker.io
    busybox:busybox-static iptables:iptables ip:iproute2 mkfs.ext4:e2fsprogs
    sshd:openssh-server redis-server:redis-server chromium:chromium
    clustalo:clustalo
    globus-gridftp-server:globus-gridftp-server-progs globus-url-copy:globus-gass-copy-progs
    gfal-copy:gfal2-util-scripts gfal-ls:python3-gfal2 gfal-sum:gfal2-plugin-gridftp gfal-cat:gfal2-plugin-file
    xrootd:xrootd-server
    docker-registry:docker-registry docker-compose:docker-compose systemd-analyze:systemd}"
# Where Debian looks whether a package may start its service.
POLICY="${POLICY:-/usr/sbin/policy-rc.d}"

missing=
for pair in $NEEDED; do
    # Servers lie where an ordinary account's PATH does not lead.
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')
missing=${missing% }
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "Not installed, because this is not root: $missing"
    exit 0
elif ! command -v apt-get >/dev/null 2>&1; then
    echo "Not installed, because there is no apt-get here: $missing"
    exit 0
fi

echo "Installing from Debian: $missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
ours=
clean_up() {
    rm -f "$log" ${ours:+"$POLICY"}
}
trap clean_up EXIT
trap 'exit 143' INT TERM HUP
# A service that starts by itself would take a port that a test wants. A policy that is there stays.
if ! [ -e "$POLICY" ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
fi
# Another apt may be at work: wait for it.
wait_for_others="-o DPkg::Lock::Timeout=300"
# shellcheck disable=SC2086 # lists of words
if ! { apt-get -qq $wait_for_others update &&
    apt-get -qq $wait_for_others install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    echo "Not installed, because apt-get failed ($(tail -n 1 "$log")): $missing"
fi
