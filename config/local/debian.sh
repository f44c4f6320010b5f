#!/bin/sh
# Installs what the tests need from Debian, where that is possible: root and apt. Anything else is told in one
# line and left to the reader. "program:package", one each; extend the list when a test needs another program.
set -eu
NEEDED="${NEEDED:-setpriv:util-linux setsid:util-linux unshare:util-linux curl:curl dockerd:docker.io busybox:busybox-static iptables:iptables docker-registry:docker-registry docker-compose:docker-compose systemd-analyze:systemd}"

missing=
for pair in $NEEDED; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')
missing=${missing% }
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "Not installed, because this is not root: $missing"
elif ! command -v apt-get >/dev/null 2>&1; then
    echo "Not installed, because there is no apt-get here: $missing"
else
    echo "Installing from Debian: $missing"
    export DEBIAN_FRONTEND=noninteractive
    # A service that starts by itself would take a port that a test wants.
    # shellcheck disable=SC2086
    if ! { apt-get -qq update && apt-get -qq install -y --no-install-recommends $missing; } >/tmp/gantry-apt.$$ 2>&1; then
        echo "Not installed, because apt-get failed ($(tail -n 1 /tmp/gantry-apt.$$)): $missing"
    fi
    rm -f /tmp/gantry-apt.$$
fi
