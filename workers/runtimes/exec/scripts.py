"""What is executed inside a container: the wrapper around a command, and the reader of what one left there.

Plain sh, tried with busybox and dash; needs dd and rm to keep output. Names begin with _g: the command's own
variables pass through untouched. Both speak the same protocol (``stream``):

on standard input, one line each: first a secret word, then requests ``r CHUNK BLOCK`` (what is there of a
chunk of output from a block on), ``k SIGNAL SESSION`` (signal all that belongs to the command, 0: count it),
``q`` (remove every file and end). The end of the input is the worker's death: the wrapper leaves all there.

on standard output, whatever was asked for, and between it lines that begin with the word:
S PID KEPT FOLDER  the command starts (reader: has started)      X  its program is not there
E CODE  its end, behind its last byte of output                  D  it has ended: ask now
A NEXT ALIVE CODE  end of an answer: is there a further chunk; does the wrapper live; the recorded exit code
K LEFT  signalled so many                                        N  no space for output, it is dropped

The command writes into a pipe that ``dd`` empties into chunk files: neither a slow worker nor a dead engine
can hold it up, and what the worker has taken is removed while it runs. Where no file can be written its
output goes straight to the stream: then nothing is left when the worker dies. Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from workers.launcher.execs import FUNCTIONS, MARK

#: Reads by which a chunk file is filled, and their size in bytes.
_READS, _READ = 1024, 65_536
#: Unit in which the worker says from where on it wants a chunk, in bytes.
BLOCK: Final = 16_384

_LOOP: Final = (
    FUNCTIONS
    + f"""
_gsay() {{ printf '%s%s\\n' "$_gw" "$1"; }}
_galive() {{ [ -n "$_gb0" ] && _gstat "$_gv" && [ "$_gu" = "$_gb0" ]; }}
_gloop() {{
  while read -r _ga _gb _gc; do
    case $_ga in
    r)
      if [ -n "$_go" ]; then
        [ "$_gc" = 0 ] && [ "$_gb" -gt 0 ] && rm -f "$_go.$((_gb - 1))"
        _gx=0; [ -e "$_go.$((_gb + 1))" ] && _gx=1
        _gy=0; _galive && _gy=1
        _gq=; IFS= read -r _gq 2>/dev/null <"$_go.code"
        [ -s "$_go.$_gb" ] && dd if="$_go.$_gb" bs={BLOCK} skip="$_gc" 2>/dev/null
        _gsay "A $_gx $_gy $_gq"
      else
        _gy=0; _galive && _gy=1
        _gsay "A 0 $_gy"
      fi ;;
    k) _gkill "$_gb" "$_gc"; _gsay "K $_gk" ;;
    q)
      if [ -n "$_go" ]; then
        _gq=; IFS= read -r _gq 2>/dev/null <"$_go.keep"
        # What the command left running may still hold the pipe: nobody reads it any more.
        if [ -n "$_gq" ] && _galive && kill -0 "$_gq" 2>/dev/null; then
          _gr=
          for _gd in /proc/[0-9]*; do
            _gstat "${{_gd#/proc/}}" && [ "$_gp" = "$_gq" ] && _gr="$_gr ${{_gd#/proc/}}"
          done
          kill "$_gq" $_gr 2>/dev/null
        fi
        rm -f "$_go".*
      fi
      return ;;
    esac
  done
}}
"""
)

_WRAPPER: Final = (
    _LOOP
    + f"""
_gm=$0; _gv=$$; _go=
_gstat "$$"; _gb0=$_gu
IFS= read -r _gw || exit 125
IFS= read -r _ga
while [ "$_ga" -gt 0 ]; do
  IFS= read -r _gb; IFS= read -r _gc
  while [ "$_gb" -gt 1 ]; do
    IFS= read -r _gd; _gc="$_gc
$_gd"; _gb=$((_gb - 1))
  done
  set -- "$@" "$_gc"; _ga=$((_ga - 1))
done
_gc=; _gd=
IFS= read -r _ga || exit 125  # everything has come
if command -v dd >/dev/null 2>&1 && command -v rm >/dev/null 2>&1; then
  for _ga in /tmp /var/tmp /dev/shm /run "${{HOME:-/}}"; do
    [ -d "$_ga" ] && [ -w "$_ga" ] || continue
    if printf '%s %s\\n' "$$" "$_gb0" 2>/dev/null >"$_ga/.$_gm.wrap" && [ -s "$_ga/.$_gm.wrap" ]; then
      _go=$_ga/.$_gm; break
    fi
  done
fi
_gt=; command -v setsid >/dev/null 2>&1 && _gt=setsid
exec 3>&1 4<&0 </dev/null
_gloop <&4 3>&- &
exec 4<&-
_gcommand() {{
  (
    read -r _ga _gb </proc/self/stat
    printf '%sS %s %s %s\\n' "$_gw" "$_ga" "${{_go:+1}}" "$_go" >&3
    [ -n "$_go" ] && printf '%s\\n' "$_ga" >"$_go.pid"
    case $1 in
    */*) [ -f "$1" ] && [ -x "$1" ] ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
    esac || {{ printf '%sX\\n' "$_gw"; exit 127; }}
    exec 3>&-
    export {MARK}="$_gm"
    exec $_gt "$@"
  ) 2>&1
  _ga=$?
  [ -n "$_go" ] && {{ umask 077; printf '%s\\n' "$_ga" >"$_go.code"; }}
  printf '%sE %s\\n' "$_gw" "$_ga"
  printf '%sD\\n' "$_gw" >&3
}}
_gkeep() {{
  umask 077
  read -r _ga _gb </proc/self/stat
  printf '%s\\n' "$_ga" >"$_go.keep"
  _gi=0
  while :; do
    if ! _gn=$(exec dd bs={_READ} count={_READS} of="$_go.$_gi" 2>&1); then
      printf '%sN\\n' "$_gw" >&3
      exec dd bs={_READ} of=/dev/null 3>&- 2>/dev/null
    fi
    [ -s "$_go.$_gi" ] || break
    # "0+3 records in": fewer reads than it may do, so it met the end. Without such words another dd looks.
    _gn=${{_gn%% records in*}}; _gn=${{_gn##*[!0-9+]}}
    case $_gn in [0-9]*+*[0-9]) [ "$((${{_gn%%+*}} + ${{_gn#*+}}))" -lt {_READS} ] && break ;; esac
    _gi=$((_gi + 1))
  done
}}
if [ -n "$_go" ]; then
  _gcommand "$@" 2>/dev/null | _gkeep
else
  _gcommand "$@" 2>/dev/null
fi
wait
"""
)

_READER: Final = (
    _LOOP
    + """
_gm=$0; _go=$1
IFS= read -r _gw || exit 125
_gv=; _gb0=; _ga=
if [ -n "$_go" ]; then
  read -r _gv _gb0 2>/dev/null <"$_go.wrap"
  IFS= read -r _ga 2>/dev/null <"$_go.pid"
else
  for _go in /tmp /var/tmp /dev/shm /run "${HOME:-/}"; do
    _go=$_go/.$_gm
    read -r _gv _gb0 2>/dev/null <"$_go.wrap" && { IFS= read -r _ga 2>/dev/null <"$_go.pid"; break; }
    _go=
  done
fi
_gsay "S ${_ga:-0} ${_go:+1} $_go"
_gloop
"""
)


def wrapper(mark: str) -> list[str]:
    """The Cmd of an exec: the wrapper, which is told the command by its standard input."""
    return ["/bin/sh", "-c", _WRAPPER, mark]


def introduction(word: str, argv: Sequence[str]) -> bytes:
    """What the wrapper reads first: the word of its lines, then the words of the command, each by lines.

    So neither the command nor its secrets stand in the configuration that the engine shows of an exec.
    """
    parts = [word, str(len(argv))]
    for argument in argv:
        parts += [str(argument.count("\n") + 1), argument]
    return "\n".join([*parts, "go", ""]).encode()


def reader(mark: str, folder: str) -> list[str]:
    """The Cmd of an exec that goes on where a dead worker was; ``folder`` is what S said, or empty."""
    return ["/bin/sh", "-c", _READER, mark, folder]
