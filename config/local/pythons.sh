#!/bin/sh
# What may differ from one Python to another, on other Pythons than that of .venv: the unit tests (the launcher's are
# among them) and `make demo`, in a clean copy of the tree. Everything else runs on .venv's Python only.
#   config/local/pythons.sh 3.13 [3.12 ...]
# PYTHON313=/path/to/python3.13 names one; else PATH, /usr and pyenv are asked. Without one it says so, and with CI set
# that is a failure.
set -eu
cd "$(dirname "$0")/../.."

is_version() { # python, 3.N
    "$1" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$2')" >/dev/null 2>&1
}

find_python() { # 3.N
    variable=PYTHON$(printf '%s' "$1" | tr -d .)
    named=$(printenv "$variable" || true)
    if [ -n "$named" ] && ! is_version "$named" "$1"; then
        echo "$variable=$named does not run or is no Python $1" >&2
        return 1
    fi
    # pyenv's names on PATH fail for what is not switched on; the Pythons themselves work.
    pyenv=${PYENV_ROOT:-$(pyenv root 2>/dev/null || true)}
    for python in "$named" "python$1" "/usr/local/bin/python$1" "/usr/bin/python$1" "$pyenv/versions/$1".*/bin/"python$1"; do
        if [ -n "$python" ] && is_version "$python" "$1"; then
            printf '%s\n' "$python"
            return
        fi
    done
    echo "no Python $1 on this machine: install it, or name one with $variable=/path/to/python$1" >&2
    return 1
}

work=$(mktemp -d /tmp/gantry-python.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
# Set in some images of containers. The packages come without compiled modules: every process would compile them again.
unset PYTHONDONTWRITEBYTECODE
chmod 755 "$work" # commands and tests of ordinary users get through

for version in "$@"; do
    if ! python=$(find_python "$version"); then
        [ -z "${CI:-}" ] || exit 1
        echo "Nothing was tested on Python $version"
        continue
    fi
    rm -rf "$work/tree"
    mkdir "$work/tree"
    tar --exclude=./.venv --exclude=./var --exclude=./.git --exclude='*_cache' --exclude=__pycache__ \
        --exclude=./.hypothesis -cf - . | tar -C "$work/tree" -xf -
    uv=
    [ ! -x .venv/bin/uv ] || uv=$(pwd)/.venv/bin/uv
    (
        cd "$work/tree"
        unset MAKEFLAGS # what make was told above is not meant for the copy
        export PYTHON="$python" UV="$uv"
        began=$(date +%s)
        make --no-print-directory venv-dev
        installed=$(date +%s)
        # First, because it compiles what every process of the tests loads.
        make --no-print-directory demo
        shown=$(date +%s)
        .venv/bin/python -m tests.tools.run auto tests/unit -m "not long"
        echo "On $(.venv/bin/python -V): packages $((installed - began)) s, make demo $((shown - installed)) s," \
            "unit tests $(($(date +%s) - shown)) s"
    )
done
