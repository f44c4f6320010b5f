"""The shim: one process per run, forked (not executed) from the launcher, parent of the user's command.

It holds the run's lock for life, adopts every orphan of the run, carries out stops, carries the output from
the command's pipes into files, and writes `exit` when no process of the run is left. It needs nobody:
launcher and worker may die.

Standard library only, and plain code on purpose: every page of memory that a shim touches is copied, and at
hundreds of starts a second that is most of what a start costs. What can be done before the fork is done then.
Paths are reached through descriptors taken before the mounts change.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import time

from . import control, handover, isolation, kernel, limits, output, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .handover import Handed
    from .isolation import Isolation
    from .orders import Order

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"

_WAKE_SIGNALS = (signal.SIGCHLD, signal.SIGUSR1)
_ALL_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_KILL_AGAIN = 0.02  # seconds between two rounds of KILL
_RECORD_AGAIN = 0.5  # seconds between two tries to write `exit` on a full disk
_LOOK_AGAIN = 3.0  # seconds between two looks at `stop`: who wrote it may have died before the signal
_NOT_HERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
# A command's limits hold for its shim, too, which must be able to work under them.
_LEAST_FILES = 32
_LEAST_DATA = 32 * 1024 * 1024  # bytes


def run(order: Order, handed: Handed, separate: Isolation) -> None:
    """The whole life of a shim, called in the fork with every signal blocked. Never returns."""
    try:
        _close_all_but(handed.kept())
        os.setsid()
        shim = Shim(order, handed, separate)
        try:
            shim.prepare()
        except OSError as error:
            # Nothing was executed and `started` is not there: the run may be started again.
            shim.send("error", {"message": str(error)})
        else:
            shim.execute()
            shim.watch()
    except BaseException as error:  # noqa: BLE001 (a forked child must end here, whatever happened)
        _say(order, repr(error))
    finally:
        os._exit(0)


def _say(order: Order, message: object) -> None:
    """One line to launcher.log, which may lie on a full disk."""
    with contextlib.suppress(OSError):
        os.write(2, f"shim of {order.name}: {message}\n".encode(errors="replace"))


def _close_all_but(kept: list[int]) -> None:
    kept.sort()
    low = 3
    for file in kept:
        if file > low:
            os.closerange(low, file)
        low = file + 1
    os.closerange(low, 1 << 20)


class Shim:
    def __init__(self, order: Order, handed: Handed, separate: Isolation) -> None:
        self._order = order
        self._handed = handed
        self._folder = handed.folder
        self._separate = separate
        self._output = output.Output(handed, order.head_bytes, order.tail_bytes, _WAKE_SIGNALS)
        self._limits = limits.Limits(order, separate, handed.group, handed.uid)
        self._main = 0
        self._status: int | None = None
        self._error: str | None = None
        self._started_at = self._ended_at = 0.0
        self._began = self._ran = 0.0
        self._why: str | None = None
        self._deadline: float | None = None

    def prepare(self) -> None:
        """Everything that may fail without a trace; at its end `started` is written. Raises OSError."""
        order, separate, uid = self._order, self._separate, self._handed.uid
        own_id = os.readlink("/proc/self")  # our id on the host: a PID namespace of our own calls us 1
        self._host_proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if self._handed.needs_walk and uid is not None:
            handover.own_tree(order.scratch, uid)
        if separate.mode == isolation.NAMESPACES and uid is not None:
            separate.enter_namespaces(order.scratch, uid)
            self._reach: processes.Reach = processes.NamespaceReach()
        else:
            kernel.become_subreaper()
            self._reach = processes.TreeReach() if uid is None else processes.UserReach(uid)
        if uid is not None:
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, 0)
        try:
            os.chdir(order.scratch)
        except OSError as error:
            raise OSError(
                f"user {os.geteuid()} cannot enter the working folder {order.scratch}: {error.strerror}. "
                "Every folder above it must be searchable (chmod o+x)."
            ) from None
        finally:
            if uid is not None:
                os.setresuid(0, 0, 0)
        self._null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._started_at, self._began = time.time(), time.monotonic()
        self._started = {
            "shim_pid": int(own_id),
            "pid": None,
            "uid": os.getuid() if uid is None else uid,
            "fence": order.fence,
            "at": self._started_at,
            "boottime": control.boottime(),
            "boot_id": separate.boot_id,
            "isolation": separate.mode,
            "scratch": order.scratch,
            "pipes": self._output.pipes(),
        }
        control.write_record("started", self._started, self._folder)

    def execute(self) -> None:
        """Start the command in a session of its own. A failure is the run's end, not ours."""
        uid = self._handed.uid
        inside = self._separate.mode == isolation.NAMESPACES
        try:
            self._limit()
            self._limits.enter()
            if uid is None:
                self._main = self._spawn()
            elif inside:
                # The saved uid stays ours, for the way back; the command's exec replaces it by its own.
                os.setresuid(uid, uid, 0)
                self._main = self._spawn()
            else:
                self._main = self._fork(uid)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            self._error = f"cannot execute {self._order.argv[0]!r}: {reason}"
            self._ended_at = time.time()
        if uid is not None and inside:
            os.setresuid(0, 0, 0)
        self._limits.leave(self._main)
        self._handed.let_go()
        self._started["pid"] = self._host_id_of_main() if self._main else None
        os.close(self._host_proc)
        self.send("started", self._started)

    def _spawn(self) -> int:
        """As the user that we are now. In a PID namespace nobody kills us, its init, whoever we are."""
        files = (self._null, *self._handed.writing)
        actions = [(os.POSIX_SPAWN_DUP2, file, number) for number, file in enumerate(files)]
        return self._first_that_is_there(
            lambda program: os.posix_spawn(
                program, self._order.argv, self._order.env,
                file_actions=actions, setsid=True, setsigmask=(), setsigdef=_ALL_SIGNALS,
            )
        )  # fmt: skip

    def _fork(self, uid: int) -> int:
        """The child becomes the user, not we: for as long as we are, the command, which runs already, may
        kill us, and a command that has killed its shim is watched by nobody."""
        reading, writing = os.pipe()  # closed by the exec; or it says why there was none
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                os.setresuid(uid, uid, uid)
                for number, file in enumerate((self._null, *self._handed.writing)):
                    os.dup2(file, number)
                for number in _ALL_SIGNALS:
                    signal.signal(number, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
                self._first_that_is_there(
                    lambda program: os.execve(program, self._order.argv, self._order.env)  # noqa: S606
                )
            except OSError as error:
                os.write(writing, b"%d %s" % (error.errno or 0, (error.strerror or "").encode()))
            except ValueError as error:
                os.write(writing, b"%d %s" % (errno.EINVAL, str(error).encode()))
            finally:
                os._exit(127)
        os.close(writing)
        refusal = os.read(reading, 1000)
        os.close(reading)
        if not refusal:
            return child
        os.waitpid(child, 0)
        why, _, text = refusal.decode().partition(" ")
        raise OSError(int(why), text)

    def _first_that_is_there(self, start: Callable[[str], int]) -> int:
        """Start the program where its PATH finds it. Raises OSError; ValueError for a NUL in an argument."""
        order = self._order
        refusal = OSError(errno.ENOENT, "not found in its PATH")
        for program in _candidates(order.argv[0], order.env.get("PATH", DEFAULT_PATH)):
            try:
                return start(program)
            except OSError as error:
                if error.errno not in _NOT_HERE or "/" in order.argv[0]:
                    raise
                if error.errno == errno.EACCES:
                    refusal = error
        raise refusal

    def _limit(self) -> None:
        """Set the command's limits on ourselves: it inherits them at its start."""
        order = self._order
        if order.nproc is not None:
            # An ordinary user's other processes count, too. At the start we are the run's second one.
            others = processes.tasks_of_user(os.getuid()) if self._handed.uid is None else 0
            _set_limit(resource.RLIMIT_NPROC, max(order.nproc, 2) + others)
        files = self._separate.files_limit if order.nofile is None else (max(order.nofile, _LEAST_FILES),) * 2
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
        if order.data_bytes is not None:
            _set_limit(resource.RLIMIT_DATA, max(order.data_bytes, _LEAST_DATA))

    def _host_id_of_main(self) -> int | None:
        if self._separate.mode != isolation.NAMESPACES:
            return self._main
        own = self._started["shim_pid"]
        try:
            path = f"{own}/task/{own}/children"
            listing = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._host_proc)
            children = os.read(listing, 4096).split()
            os.close(listing)
        except OSError:
            return None
        return int(children[0]) if children else None

    def watch(self) -> None:
        """Until no process of the run is left; then record the end."""
        while self._reap():
            try:
                self._obey()
                if self._status is None and self._limits.exceeded():
                    self._reach.kill()
            except OSError as error:  # a full disk, say: it must not stop the watching
                _say(self._order, error)
            self._output.carry()
            self._output.wait(self._patience())
        self._record()

    def _reap(self) -> bool:
        """Collect what ended. False when no child is left, which means no process of the run."""
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if process == 0:
                return True
            if process == self._main:
                self._status, self._ended_at = status, time.time()
                self._ran = time.monotonic() - self._began

    def _obey(self) -> None:
        """Carry out what is due: the end of the main process, or a request to stop."""
        if self._status is not None:
            self._reach.kill()
            return
        record = control.read_record("stop", self._folder)
        if record is None and os.pread(self._handed.lock, 1, 0) not in (b"", b"\0"):
            record = control.read_stop("", self._folder)  # written into the lock file: the disk is full
        request = control.stop_request(record)
        if request is None:
            return
        why, at, deadline = request
        now = control.boottime()
        deadline = min(deadline, now + max(0.0, deadline - at))
        if self._deadline is None:
            self._why, self._deadline = why, deadline
            self._reach.send(signal.SIGTERM)
            self._reach.send(signal.SIGCONT)  # a stopped process can only end itself when it runs
        self._deadline = min(self._deadline, deadline)
        if now >= self._deadline:
            self._reach.kill()

    def _patience(self) -> float:
        if self._status is not None:
            return _KILL_AGAIN
        usual = min(_LOOK_AGAIN, self._limits.interval)
        if self._deadline is None:
            return usual
        return min(usual, max(_KILL_AGAIN, self._deadline - control.boottime()))

    def _record(self) -> None:
        status = self._status
        if status is None and self._error is None:
            raise RuntimeError("the main process was never collected: its end is unknown")
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        record = {
            "code": os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None,
            "signal": os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None,
            "error": self._error,
            "pid": self._started["pid"],
            "started_at": self._started_at,
            "ended_at": self._ended_at,
            "ran_s": round(self._ran, 6),
            "max_rss_kb": usage.ru_maxrss,
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 6),
        }
        by_kill = record["signal"] == signal.SIGKILL
        record.update(self._limits.summary(self._why, by_kill=by_kill))
        while True:
            try:
                record.update(self._output.summary())
                control.write_exit(record, self._folder, self._handed.lock)
                break
            except FileNotFoundError:
                break  # our folder was removed: nobody is left who could ask how it ended
            except OSError as problem:
                # An end that is not recorded is a lost run: wait for the disk rather than lose it.
                _say(self._order, f"cannot record the end: {problem}")
                signal.sigtimedwait(_WAKE_SIGNALS, _RECORD_AGAIN)
        self.send("exit", record)

    def close(self) -> None:
        """For a rehearsal, where the process goes on."""
        os.close(self._null)
        self._output.close()

    def send(self, kind: str, record: control.Record) -> None:
        """Tell the launcher, if it still listens: files are the truth, this only saves it a look."""
        with contextlib.suppress(OSError):
            os.write(self._handed.report, b"%s %s\n" % (kind.encode(), control.dump(record)))


def _set_limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if os.geteuid() != 0 and hard != resource.RLIM_INFINITY:
        value = min(value, hard)  # an ordinary user can only lower a limit
    resource.setrlimit(kind, (value, value))


def _candidates(program: str, path: str) -> list[str]:
    """The files that `program` may mean, as execvp would look for them."""
    if "/" in program:
        return [program]
    return [found for folder in path.split(":") if os.path.lexists(found := f"{folder or '.'}/{program}")]
