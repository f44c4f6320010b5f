"""The child that becomes the user's command: everything between its fork and its exec.

Standard library only. It talks with its shim over one socket that exec closes: it sends its own id, waits for
one byte ("`started` is written, go"), and after that only sends why exec failed. Without the byte it never
executes anything: a shim that dies here has started nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal

from . import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from .orders import Order

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
_CHANGED_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGPIPE,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGXFSZ,
)
_NOT_HERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)


class CommandError(Exception):
    """The command could not be executed; the message is for the person who asked for it."""


class Setting:
    """What the shim hands to the child besides the order."""

    def __init__(
        self, uid: int | None, files: tuple[int, ...], host_proc: int, files_limit: tuple[int, int], guarded: bool
    ) -> None:
        self.uid = uid
        self.files = files  # stdout, stderr
        self.host_proc = host_proc  # the /proc that knows this process by its id on the host
        self.files_limit = files_limit
        self.guarded = guarded  # must the child itself see to it that it dies with the shim?


def become(order: Order, setting: Setting, link: socket.socket) -> None:
    """Turn this process into the command. Never returns."""
    message = ""
    try:
        link.sendall(b"%d\n" % int(os.readlink("self", dir_fd=setting.host_proc)))
        _prepare(order, setting)
        if link.recv(1):
            _execute(order)
    except CommandError as error:
        message = str(error)
    except BaseException as error:  # noqa: BLE001 (a forked child must end here, whatever happened)
        message = f"cannot prepare the command: {error or type(error).__name__}"
    with contextlib.suppress(OSError):
        link.sendall(message.encode(errors="replace"))
    os._exit(127)


def _prepare(order: Order, setting: Setting) -> None:
    os.setsid()
    os.umask(0o022)
    for number in _CHANGED_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    shim = os.getppid()
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    for number, file in enumerate((null, *setting.files)):
        os.dup2(file, number)
    _limit(order, setting.files_limit)
    if setting.uid is not None:
        uid = setting.uid
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    kernel.no_new_privileges()
    if setting.guarded:
        # In a namespace of its own the kernel does this for every process of the run.
        kernel.die_with_parent(signal.SIGKILL)
        if os.getppid() != shim:
            os._exit(127)
    try:
        os.chdir(order.scratch)
    except OSError as error:
        raise CommandError(
            f"cannot enter the working folder {order.scratch}: {error.strerror}. "
            f"User {os.geteuid()} needs search permission on every folder above it."
        ) from None


def _limit(order: Order, files_limit: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if order.nofile is None:
        resource.setrlimit(resource.RLIMIT_NOFILE, files_limit)
    else:
        _set_limit(resource.RLIMIT_NOFILE, order.nofile)
    if order.nproc is not None:
        _set_limit(resource.RLIMIT_NPROC, order.nproc)


def _set_limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if os.geteuid() != 0 and hard != resource.RLIM_INFINITY:
        value = min(value, hard)  # an ordinary user can only lower a limit
    resource.setrlimit(kind, (value, value))


def _execute(order: Order) -> None:
    arguments = [_encode(text) for text in order.argv]
    environment = {_encode(key): _encode(value) for key, value in order.env.items()}
    candidates = list(_candidates(order.argv[0], order.env.get("PATH", DEFAULT_PATH)))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if order.data_bytes is not None:
        _set_limit(resource.RLIMIT_DATA, order.data_bytes)  # last: it binds this interpreter too
    refusal: OSError | None = None
    for candidate in candidates:
        try:
            os.execve(candidate, arguments, environment)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                refusal = error
                break
            if refusal is None or error.errno == errno.EACCES:
                refusal = error
    reason = refusal.strerror if refusal else "not found in an empty PATH"
    raise CommandError(f"cannot execute {order.argv[0]!r}: {reason}")


def _candidates(program: str, path: str) -> Iterator[bytes]:
    if "/" in program:
        yield _encode(program)
        return
    for folder in path.split(":"):
        yield _encode(f"{folder or '.'}/{program}")


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
