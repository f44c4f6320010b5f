"""Starting a server that outlives its starter: accounts, folders, locks, and secrets kept in files.

Linux only (flock, user namespaces). Must not import Django or any app.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import pwd
import secrets
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from config.local.errors import LocalError
from config.local.running import POLL_S

#: What a unix socket's address holds is 108 bytes; this leaves room for a server's own suffix.
SOCKET_PATH_LIMIT = 100


def in_a_session(
    command: Sequence[str], env: Mapping[str, str], cwd: Path, output: BinaryIO
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, without input, with both its outputs in one file."""
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


@dataclass(frozen=True)
class Account:
    """As whom a server runs: the numeric ids that own its files, and how to become them."""

    uid: int
    gid: int
    #: Put before the server's command.
    prefix: tuple[str, ...] = ()

    def popen_arguments(self) -> dict[str, object]:
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def _is_named(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


@functools.cache
def _namespaced(uid: int, gid: int) -> Account | None:
    """The account uid inside a user namespace where it is called nobody; None where that is not permitted."""
    nobody = pwd.getpwnam("nobody")
    prefix = ("unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}")
    account = Account(uid, gid, prefix)
    try:
        subprocess.run(
            [*prefix, "true"],
            check=True,
            capture_output=True,
            timeout=10,
            **account.popen_arguments(),  # type: ignore[call-overload]
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return account


def account_for(folder: Path) -> Account:
    """The account for a server whose files are in `folder`.

    Postgres refuses to run as root, and initdb as an id without a name. In a user namespace either is
    called nobody; where the machine does not permit that, root gives the folder to nobody. A folder that
    already belongs to an ordinary account stays that account's.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 and folder.exists() and (owner := folder.stat()).st_uid != 0:
        uid, gid = owner.st_uid, owner.st_gid
    if uid != 0 and _is_named(uid):
        return Account(uid, gid)
    if (account := _namespaced(uid, gid)) is not None:
        return account
    if uid != 0:
        raise LocalError(
            f"uid {uid} has no name on this machine and user namespaces are not permitted: Postgres cannot "
            "run as it. Add the account to /etc/passwd, or set DATABASE_URL and REDIS_URL"
        )
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def private_folder(folder: Path, account: Account) -> Path:
    """`folder`, made if need be, 0700 and owned by `account`; refuses a symbolic link or another's folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), account.uid):
        raise LocalError(
            f"{folder} is not a folder of uid {account.uid}: remove it or choose another data folder"
        )
    if found.st_uid != account.uid:
        os.chown(folder, account.uid, account.gid)
    folder.chmod(0o700)
    return folder


def socket_folder(folder: Path, account: Account, longest_name: str) -> Path:
    """Where a server in `folder` puts its unix socket: inside, or elsewhere when that path is too long."""
    own = folder / "run"
    if len(os.fsencode(own / longest_name)) < SOCKET_PATH_LIMIT:
        return private_folder(own, account)
    # The name follows from the folder, so that every process finds the same one.
    parent = private_folder(Path(f"/tmp/gantry-{account.uid}"), account)  # noqa: S108
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return private_folder(parent / digest, account)


def write_private(path: Path, text: str, account: Account | None = None) -> None:
    """Writes a 0600 file in one step: a reader sees the old content or the new, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if account is not None and account.uid != os.geteuid():
        os.chown(temporary, account.uid, account.gid)
    temporary.rename(path)


def kept_secret(path: Path, make: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> str:
    """The secret in `path`, made at first use. A file that others can read is refused."""
    try:
        found = path.stat()
    except FileNotFoundError:
        write_private(path, make() + "\n")
        found = path.stat()
    if found.st_mode & 0o077:
        raise LocalError(
            f"{path} can be read by others (mode {found.st_mode & 0o777:o}): run chmod 600 {path}"
        )
    text = path.read_text().strip()
    if not text:
        raise LocalError(f"{path} is empty: restore it, or remove it to have a new one made")
    return text


def spawn_detached(
    command: Sequence[str], *, account: Account, log: Path, keep_open: int, environment: Mapping[str, str]
) -> None:
    """Starts `command` in a session of its own, as nobody's child: a terminal's Ctrl-C does not reach it.

    `keep_open` is a locked descriptor that the server inherits: the lock lasts as long as the server or any
    of its children, whatever happens to its pid file.
    """
    setsid = program_on_path("setsid")
    if setsid is None:
        raise LocalError("the program setsid is not on PATH (Debian: apt install util-linux)")
    with log.open("ab") as output:
        log.chmod(0o600)
        subprocess.run(
            [str(setsid), "--fork", *account.prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(keep_open,),
            env=dict(environment),
            cwd="/",
            umask=0o077,
            check=True,
            **account.popen_arguments(),  # type: ignore[call-overload]
        )


def program_environment() -> dict[str, str]:
    """A server's whole environment: none of the caller's secrets."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "HOME": "/"}


@contextmanager
def folder_lock(path: Path, deadline: float, is_up: Callable[[], bool]) -> Iterator[int | None]:
    """The lock that a running server holds. Yields its descriptor, or None when a live server has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if is_up():
                    yield None
                    return
                if time.monotonic() > deadline:
                    raise LocalError(
                        f"{path.parent} is held by a server that does not answer and is not visible from "
                        "here (another container, or one that hangs): stop that one first"
                    ) from None
                time.sleep(POLL_S)
            else:
                yield descriptor
                return
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """True while a server (or one of its children) or a starter holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log file, for a message; at most 8 KiB."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:])


def program_on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None
