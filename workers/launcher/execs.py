"""Ends what an exec started inside a container: shared by the worker's runtime and by the guard.

The Engine has no exec kill. What belongs to an exec is known by a mark in its environment (``MARK``), by the
session of its main process, and by descent from either. Where this machine is the engine's, and this is its
root, the host's own view of the processes finds and signals it, each checked against the container's control
group: whatever state the container is in. Else a shell in the container does, by built-in commands only, so
it works where no process can be forked any more. Standard library only: the guard imports this.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal as signals

from . import strays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .control import Record

    Known = set[tuple[int, int]]

#: Environment variable of everything that an exec starts: <installation>-<run>-<attempt>-<random>.
MARK = "GANTRY_EXEC"

#: Shell functions. ``_gkill SIGNAL``: signals what belongs to the exec, leaves how many in _gk. First all is
#: looked for until nothing more is found, then signalled: a parent's end hides its children. ``read`` drops
#: the
#: NUL bytes of an environment.
FUNCTIONS = r"""
_gstat() {
  IFS= read -r _gl 2>/dev/null <"/proc/$1/stat" || return 1
  set -- ${_gl##*) }
  _gz=$1; _gp=$2; _gs=$4
}
_gmarked() {
  [ -r "/proc/$1/environ" ] || return 1
  { while IFS= read -r _gl || [ -n "$_gl" ]; do
      case $_gl in *"GANTRY_EXEC=$_gm"*) return 0 ;; esac
    done <"/proc/$1/environ"; } 2>/dev/null
  return 1
}
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
      case $_gf in *" $_gp "* | *" $_gs "*) ;; *) _gmarked "$_gi" || continue ;; esac
      _gf="$_gf$_gi "; _gk=$((_gk + 1)); _gmore=1
    done
  done
  [ "$1" = 0 ] || for _gi in $_gf; do kill -s "$1" "$_gi" 2>/dev/null; done
}
"""

#: ``sh -c KILL <mark> SIGNAL``: signals once, says how many it found.
KILL = FUNCTIONS + '\n_gm=$0\n_gkill "$1"\nprintf "left=%s\\n" "$_gk"\n'


def signal(call: Callable[[str, str, Record], bytes], plan: Record, name: str, known: Known) -> int | None:
    """Signal what an exec started ("0": only count it). Returns how many processes there were, None when
    nobody can tell.

    ``call`` is one request to the engine: its raw answer. ``plan`` says container, mark, user, privileged,
    and pid and born of its main process where they are known. ``known`` remembers what was found before: it
    may have lost its parents since.
    """
    if os.geteuid() == 0 and strays.left(plan["container"]):
        return _from_host(plan, name, known)
    return _inside(call, plan, name)


def _inside(call: Callable[[str, str, Record], bytes], plan: Record, name: str) -> int | None:
    """By a second exec with the rights of the first; None without a shell, a free process, a running
    container."""
    made = json.loads(
        call(
            "POST",
            f"/containers/{plan['container']}/exec",
            {
                "AttachStdout": True,
                "AttachStderr": True,
                "User": plan.get("user") or "",
                "Privileged": bool(plan.get("privileged")),
                "Cmd": ["/bin/sh", "-c", KILL, plan["mark"], name],
            },
        )
    )
    told = call("POST", f"/exec/{made['Id']}/start", {"Detach": False, "Tty": False})
    _, found, rest = told.partition(b"left=")
    number = rest.partition(b"\n")[0]
    return int(number) if found and number.isdigit() else None


def _from_host(plan: Record, name: str, known: Known) -> int:
    container = plan["container"].encode()
    killed = 0
    for pid, born in _processes(plan, known):
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            # The descriptor is held: the number cannot be given to another process between look and signal.
            if born_at(pid) == born and container in _read(f"/proc/{pid}/cgroup"):
                if name != "0":
                    with contextlib.suppress(OSError):
                        signals.pidfd_send_signal(handle, getattr(signals, f"SIG{name}"))
                killed += 1
        finally:
            os.close(handle)
    return killed


def _processes(plan: Record, known: Known) -> Known:
    """(number, birth) of the processes of an exec as this machine numbers them: in the container's control
    group, and marked, of its session, found before, or descended from one of these."""
    container, wanted = plan["container"].encode(), f"{MARK}={plan['mark']}".encode()
    main = (plan.get("pid"), plan.get("born"))
    there: dict[int, tuple[int, int, int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and container in _read(f"/proc/{entry}/cgroup"):
            state, parent, session, born = _stat(int(entry))
            if state not in ("Z", "X", ""):
                there[int(entry)] = (parent, session, born)
    # A session's number is given to nobody else while one of its processes lives, also after its leader's
    # end.
    led = main[0] if main[0] and (main[0] not in there or there[main[0]][2] == main[1]) else None
    found = {
        pid
        for pid, (_parent, session, born) in there.items()
        if (pid, born) == main
        or session == led
        or (pid, born) in known
        or wanted in _read(f"/proc/{pid}/environ").split(b"\0")
    }
    while more := {pid for pid, (parent, _, _) in there.items() if parent in found} - found:
        found |= more
    known |= {(pid, there[pid][2]) for pid in found}
    return {(pid, there[pid][2]) for pid in found}


def born_at(pid: int) -> int:
    """When a process of this machine began, in ticks since the machine's start; 0 when there is none."""
    return _stat(pid)[3]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _stat(pid: int) -> tuple[str, int, int, int]:
    """(state, parent, session, birth); ("", 0, 0, 0) when there is no such process."""
    words = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return (
        (words[0].decode(), int(words[1]), int(words[3]), int(words[19]))
        if len(words) > 19
        else ("", 0, 0, 0)
    )
