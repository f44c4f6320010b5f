#!/bin/sh
# Makes what docker-compose.yml asks for: passwords and keys in deploy/secrets/, .env, deploy/gantry.env. Run it as
# root in the checkout: sudo sh deploy/compose-env.sh. What is there already stays as it is; run it again at will.
# A secret file belongs to the user that reads it inside a container, and nobody else may: commands run by the
# worker are other users in the same container.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "compose-env: run it as root: the files must belong to users of the containers" >&2; exit 1; }
umask 077
GANTRY=10001:10001  # the user of the image
SERVER=999:999      # postgres and redis in their official images (Debian)
here=deploy/secrets
mkdir -p "$here"
chmod 711 "$here"

word() { head -c 32 /dev/urandom | base64 | tr -d '+/=\n'; }
fernet() { head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'; }
# secret NAME OWNER VALUE: written once; a half-written file never has the name.
secret() {
    [ -s "$here/$1" ] && return 0
    printf '%s\n' "$3" > "$here/.$1.new"
    chown "$2" "$here/.$1.new"
    chmod 400 "$here/.$1.new"
    mv "$here/.$1.new" "$here/$1"
    echo "made $here/$1"
}

secret postgres_password $SERVER "$(word)"
secret redis_password $SERVER "$(word)"
secret database_url $GANTRY "postgres://gantry:$(cat $here/postgres_password)@postgres:5432/gantry"
secret redis_url $GANTRY "redis://:$(cat $here/redis_password)@redis:6379/0"
secret secret_keys $GANTRY "$(fernet)"
secret django_secret_key $GANTRY "$(word)$(word)"
secret flower_basic_auth $GANTRY "gantry:$(word)"
secret bootstrap_token $GANTRY "gnt_$(word)"
secret admin_password $GANTRY "$(word)"

if [ ! -e .env ]; then
    name=$(hostname -s 2>/dev/null || hostname)
    cat > .env <<END
# For docker-compose.yml itself; settings of Gantry are in deploy/gantry.env.
GANTRY_SECRETS_DIR=./$here
# Names under which clients call the service, separated by commas.
GANTRY_ALLOWED_HOSTS=localhost,127.0.0.1,$name
# Never change it while runs are on the node.
GANTRY_NODE_NAME=$name
# How clients reach the API: log URLs in callbacks begin with it.
GANTRY_PUBLIC_URL=http://127.0.0.1:8000
# Address and port of the API; put TLS in front before it leaves this machine.
GANTRY_LISTEN=127.0.0.1:8000
# Scratch of this node; the same path inside and outside.
GANTRY_SCRATCH=/var/lib/gantry
END
    chmod 644 .env
    echo "made .env"
fi
if [ ! -e deploy/gantry.env ]; then
    cat > deploy/gantry.env <<END
# Settings of Gantry (docs/operations.md, Settings), one NAME=value a line. No secrets: those are in $here/.
GANTRY_LOG_LEVEL=INFO
END
    chmod 644 deploy/gantry.env
    echo "made deploy/gantry.env"
fi
# Where commands keep their folders: other users pass through, nobody looks around.
scratch=$(sed -n 's/^GANTRY_SCRATCH=//p' .env)
mkdir -p "${scratch:-/var/lib/gantry}"
chmod 711 "${scratch:-/var/lib/gantry}"
echo "The token of the first user is in $here/bootstrap_token, the password of admin in $here/admin_password."
