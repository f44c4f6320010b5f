"""Ends what an exec started inside a container: shared by the worker's runtime and by the guard.

The Engine has no exec kill. What belongs to an exec is known by a mark in its environment (``MARK``), by the
session of its main process, and by descent from either. Inside the container a shell finds and signals it
with its built-in commands only, so it works where no process can be forked any more; where there is no shell,
the host's own view of the processes does it, each checked against the container's control group. Standard
library only: the guard imports this.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal as signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .control import Record

#: Environment variable of everything that an exec starts: <installation>-<run>-<attempt>-<random>.
MARK = "GANTRY_EXEC"

#: Shell functions. ``_gkill SIGNAL SESSION``: signals what belongs to the exec, leaves how many in _gk. First
#: all is looked for until nothing more is found, then signalled: a parent's end hides its children. What was
#: found once is known again (process id and start time). ``read`` drops the NUL bytes of an environment.
FUNCTIONS = r"""
_gstat() {
  IFS= read -r _gl 2>/dev/null <"/proc/$1/stat" || return 1
  set -- ${_gl##*) }
  _gz=$1; _gp=$2; _gs=$4; _gu=${20}
}
_gmarked() {
  [ -r "/proc/$1/environ" ] || return 1
  { while IFS= read -r _gl || [ -n "$_gl" ]; do
      case $_gl in *"GANTRY_EXEC=$_gm"*) return 0 ;; esac
    done <"/proc/$1/environ"; } 2>/dev/null
  return 1
}
_gold=' '
_gkill() {
  _gf=' '; _gk=0; _gmore=1
  while [ "$_gmore" = 1 ]; do
    _gmore=0
    for _gd in /proc/[0-9]*; do
      _gi=${_gd#/proc/}
      case $_gf in *" $_gi "*) continue ;; esac
      [ "$_gi" = 1 ] && continue
      _gstat "$_gi" || continue
      case $_gz in Z | X) continue ;; esac
      case $_gf in *" $_gp "*) _ghit=1 ;; *) _ghit=0 ;; esac
      case $_gold in *" $_gi/$_gu "*) _ghit=1 ;; esac
      [ -n "$2" ] && [ "$_gs" = "$2" ] && [ "$_gi" != "$2" ] && _ghit=1
      [ "$_ghit" = 1 ] || { _gmarked "$_gi" && _ghit=1; }
      [ "$_ghit" = 1 ] || continue
      _gf="$_gf$_gi "; _gold="$_gold$_gi/$_gu "; _gk=$((_gk + 1)); _gmore=1
    done
  done
  [ "$1" = 0 ] || for _gi in $_gf; do kill -s "$1" "$_gi" 2>/dev/null; done
}
"""

#: ``sh -c KILL <mark> SIGNAL SESSION``: signals once, says how many it found.
KILL = FUNCTIONS + '\n_gm=$0\n_gkill "$1" "$2"\nprintf "left=%s\\n" "$_gk"\n'


def kill_inside(call: Callable[[str, str, Record], bytes], plan: Record, signal: str) -> int | None:
    """Signal what an exec started, by a second exec with the rights of the first.

    ``call`` is one request to the engine: its raw answer. Returns how many processes were found, None when
    nobody can tell this way (no shell, no free process, container not running).
    """
    made = json.loads(
        call(
            "POST",
            f"/containers/{plan['container']}/exec",
            {
                "AttachStdout": True,
                "AttachStderr": True,
                "User": plan.get("user") or "",
                "Privileged": bool(plan.get("privileged")),
                "Cmd": ["/bin/sh", "-c", KILL, plan["mark"], signal, str(plan.get("session") or "")],
            },
        )
    )
    told = call("POST", f"/exec/{made['Id']}/start", {"Detach": False, "Tty": False})
    _, found, rest = told.partition(b"left=")
    number = rest.partition(b"\n")[0]
    return int(number) if found and number.isdigit() else None


def processes(container: str, mark: str) -> list[int]:
    """The processes of an exec as this machine numbers them: in the container's control group, and marked or
    descended from one that is. Empty where this machine is not the engine's, or may not look."""
    wanted = f"{MARK}={mark}".encode()
    parents: dict[int, int] = {}
    found: set[int] = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or container.encode() not in _read(f"/proc/{entry}/cgroup"):
            continue
        state, parent = _stat(entry)
        if state in ("Z", "X", ""):
            continue
        parents[int(entry)] = parent
        if wanted in _read(f"/proc/{entry}/environ").split(b"\0"):
            found.add(int(entry))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def kill_from_host(container: str, mark: str, signal: str) -> int:
    """Signal what ``processes`` finds; how many."""
    number = getattr(signals, f"SIG{signal}")
    killed = 0
    for pid in processes(container, mark):
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            # The descriptor is held: the number cannot be given to another process between look and signal.
            if container.encode() in _read(f"/proc/{pid}/cgroup"):
                with contextlib.suppress(OSError):
                    signals.pidfd_send_signal(handle, number)
                killed += 1
        finally:
            os.close(handle)
    return killed


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _stat(pid: str) -> tuple[str, int]:
    words = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return (words[0].decode(), int(words[1])) if len(words) > 1 else ("", 0)
