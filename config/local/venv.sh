#!/bin/sh
# Makes .venv with the packages of a lock file, on a machine that has a Python from 3.11 to 3.14 and nothing else.
#   config/local/venv.sh requirements.txt [requirements-dev.txt]
# Takes the Python that PYTHON names, else that of a .venv that works (nobody wants it made again because a newer one
# appeared), else the newest it finds.
# UV=/path/to/uv: packages are installed with that first (pip's settings are not its own: then with pip).
# Does nothing when they are installed already: .venv/installed names the locks' checksums, the
# interpreter and the place (a virtual environment does not survive being moved).
set -eu
cd "$(dirname "$0")/../.."
venv=.venv

fail() {
    printf 'make: %s\n' "$1" >&2
    exit 1
}

# Prints 3.N for a Python that Gantry can use, else nothing. It is run: a name on PATH may be a stand-in that only says
# where a real one would be. There are no wheels for PyPy and for builds without the global lock.
version_of() {
    "$1" - 2>/dev/null <<'END' || true
import sys
if (3, 11) <= sys.version_info[:2] <= (3, 14) and sys.implementation.name == "cpython" and "t" not in sys.abiflags:
    print("%d.%d" % sys.version_info[:2])
END
}

# The line of .venv/installed for this Python and these locks: checksum, Python, place.
key() { # python, lock...
    runs=$1
    shift
    "$runs" - "$@" <<'END'
import hashlib, os, sys
locks = hashlib.sha256()
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        locks.update(file.read())
print(locks.hexdigest(), sys.base_prefix, sys.version.split()[0], os.getcwd())
END
}

# Makes .venv with this Python and sees to it that something can install packages there. Else adds to `problems`.
problems=
make_venv() { # python
    echo "Making $venv with $1, Python $(version_of "$1")"
    rm -rf "$venv"
    if "$1" -m venv "$venv" >/dev/null 2>&1; then
        return 0
    fi
    # Debian's Python comes without ensurepip; a pip outside can fill a bare environment.
    rm -rf "$venv"
    if ! "$1" -m venv --without-pip "$venv" >/dev/null 2>&1; then
        problems="$problems $1 cannot make virtual environments."
    elif ! "$1" -m pip --python "$venv/bin/python" --version >/dev/null 2>&1; then
        problems="$problems $1 has neither ensurepip nor pip."
    else
        return 0
    fi
    rm -rf "$venv"
    return 1
}

make_venv_of_the_newest() {
    for version in 3.14 3.13 3.12 3.11; do
        for python in "python$version" "/usr/local/bin/python$version" "/usr/bin/python$version" python3 python; do
            if [ "$(version_of "$python")" = "$version" ] && make_venv "$python"; then
                return 0
            fi
        done
    done
    return 1
}

present=$(version_of "$venv/bin/python")
if [ -n "${PYTHON:-}" ] && [ -z "$(version_of "$PYTHON")" ]; then
    fail "PYTHON=$PYTHON does not run or is no CPython 3.11, 3.12, 3.13 or 3.14 (without PYTHON the newest is taken)"
fi
if [ -n "$present" ]; then
    wanted=$(key "${PYTHON:-$venv/bin/python}" "$@")
    if grep -qxF "$wanted" "$venv/installed" 2>/dev/null; then
        exit 0
    fi
    # PYTHON may ask for another Python; and one that was copied or moved here still points at its old place.
    if [ "$(key "$venv/bin/python" "$@")" != "$wanted" ]; then
        present=
    elif [ -f "$venv/installed" ] && ! grep -qF " ${wanted#* }" "$venv/installed"; then
        present=
    fi
fi
if [ -z "$present" ]; then
    if [ -n "${PYTHON:-}" ]; then
        make_venv "$PYTHON" || fail "${problems# } Debian, Ubuntu: apt install python3-venv"
    elif ! make_venv_of_the_newest; then
        fail "Python 3.11, 3.12, 3.13 or 3.14 is needed, and none was found that works.$problems Install one (Debian, \
Ubuntu: apt install python3-venv; Fedora: dnf install python3), or say where it is: make PYTHON=/path/to/python3.N ..."
    fi
fi

if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    pip="$venv/bin/python -m pip"
else
    # The pip of the Python that it was made with.
    pip="$(sed -n 's/^executable = //p' "$venv/pyvenv.cfg") -m pip --python $venv/bin/python"
fi
echo "Installing the locked packages ($(cat "$@" | grep -c '^[a-z].*==' || true) lines of $*)"
arguments=
for lock in "$@"; do
    arguments="$arguments -r $lock"
done
# shellcheck disable=SC2086 # both are lists of words without spaces
[ -n "${UV:-}" ] && "$UV" pip install --quiet --python "$venv/bin/python" --require-hashes $arguments ||
    $pip install -qq --disable-pip-version-check --require-hashes $arguments ||
    fail "the packages could not be installed; what pip said is above. Does this machine reach a package index?"
# The first lock is contained in the others: with them it is installed too.
key "$venv/bin/python" "$1" >"$venv/installed"
key "$venv/bin/python" "$@" >>"$venv/installed"
