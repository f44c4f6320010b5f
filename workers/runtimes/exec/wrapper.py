"""What is executed in a container before a command: it reads the command from its standard input, then
becomes it.

So secret arguments do not stand in what the engine shows of an exec, and both output streams are one pipe:
their order is the command's own, which two streams through the engine are not. Plain sh, tried with busybox
and dash. The command gets exactly the environment of a plain exec where the container has ``env``: a shell
drops names that are not its own (``discovery.type``) and changes others (PWD, SHLVL). Pure: no I/O.

It reads (``launcher/attached.py`` writes): a secret word, the number of words, each of these by its number of
lines, "go". The words: how many entries of the environment there are, these entries, the command. An entry
without a value is taken from the shell's own environment. It says the word and S when it becomes the
command, the word and X when there is no such program.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

#: Set by the engine in every exec where neither image nor job do.
_ENGINES: Final = ("PATH", "HOSTNAME", "HOME")

_SCRIPT: Final = r"""
IFS= read -r _gw && IFS= read -r _gn || exit 125
while [ "$_gn" -gt 0 ]; do
  IFS= read -r _gl && IFS= read -r _gc || exit 125
  while [ "$_gl" -gt 1 ]; do
    IFS= read -r _gd || exit 125
    _gc="$_gc
$_gd"; _gl=$((_gl - 1))
  done
  set -- "$@" "$_gc"; _gn=$((_gn - 1))
done
IFS= read -r _gl || exit 125
_ge=$1; shift
_gn=$#
while [ "$_gn" -gt 0 ]; do
  _gc=$1; shift; _gn=$((_gn - 1))
  if [ "$_ge" -gt 0 ]; then
    _ge=$((_ge - 1)); _gx=$((_gx + 1))
    case $_gc in *=*) ;; *) eval "_gc=\$_gc=\$$_gc" ;; esac
  elif [ -z "$_gp" ]; then
    _gp=$_gc
  fi
  set -- "$@" "$_gc"
done
case $_gp in
*/*) [ -f "$_gp" ] && [ -x "$_gp" ] ;;
*)
  _gd=$PATH:
  while [ -n "$_gd" ]; do
    _gl=${_gd%%:*}; _gd=${_gd#*:}
    [ -f "${_gl:-.}/$_gp" ] && [ -x "${_gl:-.}/$_gp" ] && break
    [ -n "$_gd" ]
  done ;;
esac || { printf '%sX\n' "$_gw"; exit 127; }
printf '%sS\n' "$_gw"
command -v env >/dev/null 2>&1 && exec env -i "$@" </dev/null 2>&1
shift "$_gx"
exec "$@" </dev/null 2>&1
"""


def command() -> list[str]:
    """The Cmd of the exec."""
    return ["/bin/sh", "-c", _SCRIPT]


def words(container: Iterable[str], own: Mapping[str, str], argv: Sequence[str]) -> list[str]:
    """What it is told: the container's own variables ("NAME=value"), the exec's over them, the command."""
    environment = dict.fromkeys(_ENGINES)
    found: dict[str, str | None] = {**environment}
    for entry in container:
        name, sign, value = entry.partition("=")
        if sign:
            found[name] = value
    found |= own
    entries = [name if value is None else f"{name}={value}" for name, value in found.items()]
    return [str(len(entries)), *entries, *argv]
