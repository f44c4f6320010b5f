#!/bin/sh
# Makes .venv with the packages of a lock file, on a machine that has Python 3.11 and nothing else.
#   config/local/venv.sh requirements.txt [requirements-dev.txt]
# Does nothing when they are installed already: .venv/installed names the locks' checksums, the
# interpreter and the place (a virtual environment does not survive being moved).
set -eu
cd "$(dirname "$0")/../.."
venv=.venv

fail() {
    printf 'make: %s\n' "$1" >&2
    exit 1
}

find_python() {
    for candidate in "${PYTHON:-}" python3.11 python3 python /usr/local/bin/python3.11 /usr/bin/python3.11; do
        [ -n "$candidate" ] || continue
        # A name on PATH may be a stand-in that only says where a real one would be: run it.
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

python=$(find_python) || fail "Python 3.11 is needed and not found. Install it (Debian 12: apt install python3.11 \
python3.11-venv), or say where it is: make PYTHON=/path/to/python3.11 ..."

place="$("$python" -c 'import sys; print(sys.base_prefix, sys.version.split()[0])') $(pwd)"
key() {
    printf '%s %s\n' "$(cat "$@" | sha256sum | cut -c 1-64)" "$place"
}
if [ -x "$venv/bin/python" ] && grep -qxF "$(key "$@")" "$venv/installed" 2>/dev/null; then
    exit 0
fi

# One that was copied or moved here still points at its old place.
if [ -f "$venv/installed" ] && ! grep -qF " $place" "$venv/installed"; then
    rm -rf "$venv"
fi
if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    echo "Making $venv with $("$python" -V)"
    rm -rf "$venv"
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        # Debian's Python comes without ensurepip; a pip outside can fill a bare environment.
        rm -rf "$venv"
        "$python" -m venv --without-pip "$venv" 2>/dev/null ||
            fail "$python cannot make virtual environments. Debian: apt install python3.11-venv"
        "$python" -m pip --python "$venv/bin/python" --version >/dev/null 2>&1 || {
            rm -rf "$venv"
            fail "$python has neither ensurepip nor pip. Debian: apt install python3.11-venv"
        }
    fi
fi
if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    pip="$venv/bin/python -m pip"
else
    pip="$python -m pip --python $venv/bin/python"
fi
echo "Installing the locked packages ($(cat "$@" | grep -c '^[a-z].*==' || true) lines of $*)"
arguments=
for lock in "$@"; do
    arguments="$arguments -r $lock"
done
# shellcheck disable=SC2086 # both are lists of words without spaces
$pip install -qq --disable-pip-version-check --require-hashes $arguments ||
    fail "the packages could not be installed; what pip said is above. Does this machine reach a package index?"
# The first lock is contained in the others: with them it is installed too.
key "$1" >"$venv/installed"
key "$@" >>"$venv/installed"
