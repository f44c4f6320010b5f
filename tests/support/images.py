"""Images made on the spot from Debian's static busybox, and a registry (Debian's) inside an engine's network.

No image is fetched from anywhere: the tests need no network.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import docker

from tests.support.engines import Engine
from tests.support.waiting import limit, wait_until

#: Runs as root, starts a shell; every applet of busybox, the users app (1000) and nobody, a writable /tmp.
BUSYBOX = "gantry-test/busybox:1"
#: The same for an image that names its own user.
AS_APP = "gantry-test/as-app:1"
#: /bin/busybox and nothing else: no shell, no users, no folder that could be written to.
BARE = "gantry-test/bare:1"
#: The user and password that ``Registry(..., closed=True)`` asks for, and bcrypt's line for them.
USER, PASSWORD = "puller", "open-sesame"
_HTPASSWD = "puller:$2y$05$abcdefghijklmnopqrstuutXu9KzOt.1yBoZUeFWoT/914/JfszCO\n"

_PASSWD = """root:x:0:0::/root:/bin/sh
app:x:1000:1000::/:/bin/sh
nobody:x:65534:65534::/:/bin/sh
"""
_GROUP = "root:x:0:\napp:x:1000:\nnogroup:x:65534:\n"


@cache
def _root_filesystem() -> bytes:
    """The tar of a root filesystem that is busybox and nothing else."""
    program = shutil.which("busybox", path="/bin:/usr/bin")
    assert program, "the container tests need the Debian package busybox-static"
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def add(name: str, kind: bytes, mode: int, data: bytes = b"", link: str = "") -> None:
            item = tarfile.TarInfo(name)
            item.type, item.mode, item.size, item.linkname = kind, mode, len(data), link
            tar.addfile(item, io.BytesIO(data))

        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)):
            add(folder, tarfile.DIRTYPE, mode)
        add("bin/busybox", tarfile.REGTYPE, 0o755, Path(program).read_bytes())
        for applet in listed:
            if applet != "busybox":
                add(f"bin/{applet}", tarfile.SYMTYPE, 0o777, link="busybox")
        add("etc/passwd", tarfile.REGTYPE, 0o644, _PASSWD.encode())
        add("etc/group", tarfile.REGTYPE, 0o644, _GROUP.encode())
    return out.getvalue()


def load(engine: Engine) -> None:
    """Give an engine BUSYBOX and AS_APP, unless it has them."""
    api = engine.client.api
    if api.images(BUSYBOX):
        return
    name, tag = BUSYBOX.split(":")
    api.import_image_from_data(_root_filesystem(), repository=name, tag=tag, changes=['CMD ["/bin/sh"]'])
    derive(engine, AS_APP, "USER app")


def load_bare(engine: Engine) -> None:
    """Give an engine BARE, unless it has it."""
    api = engine.client.api
    if api.images(BARE):
        return
    program = shutil.which("busybox", path="/bin:/usr/bin")
    assert program, "the container tests need the Debian package busybox-static"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        item = tarfile.TarInfo("bin/busybox")
        item.mode, item.size = 0o755, Path(program).stat().st_size
        tar.addfile(item, io.BytesIO(Path(program).read_bytes()))
    name, tag = BARE.split(":")
    api.import_image_from_data(out.getvalue(), repository=name, tag=tag)


def derive(engine: Engine, name: str, *instructions: str) -> str:
    """Make an image from BUSYBOX with more instructions of a Dockerfile; returns its id."""
    text = "\n".join([f"FROM {BUSYBOX}", *instructions]).encode()
    image, lines = engine.client.images.build(fileobj=io.BytesIO(text), tag=name, rm=True)
    for _ in lines:
        pass
    return str(image.id)


def tag(engine: Engine, name: str, source: str = BUSYBOX) -> None:
    """Another name for an image that is there."""
    repository, _, version = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "latest")
    assert engine.client.api.tag(source, repository, version)


def forget(engine: Engine, *names: str) -> None:
    """Take these names, and what nobody else names, from an engine."""
    for name in names:
        try:
            engine.client.api.remove_image(name, force=True)
        except docker.errors.ImageNotFound:
            continue


class Registry:
    """A registry on 127.0.0.1 of an engine's network, over plain HTTP; ``closed`` asks for USER and PASSWORD.

    dockerd takes 127.0.0.0/8 for trustworthy without TLS. It ends with its engine at the latest. ``near``: a
    second one is in the test's own network, for a node that is the test. ``realm``: it asks for a token of
    that address.
    """

    def __init__(
        self, engine: Engine, *, port: int = 5000, closed: bool = False, near: bool = False, realm: str = ""
    ) -> None:
        self._engine = engine
        self.address = f"127.0.0.1:{port}"
        self._port = port
        self._closed = closed
        self._near = near
        self._realm = realm
        self._folder = engine.folder / f"registry-{port}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Registry:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        assert shutil.which("docker-registry"), "the pull tests need the Debian package docker-registry"
        self._folder.mkdir(exist_ok=True)
        lines = [
            "version: 0.1",
            "log: {level: error, accesslog: {disabled: true}}",
            f"storage: {{filesystem: {{rootdirectory: {self._folder}/data}}, delete: {{enabled: true}}}}",
            f"http: {{addr: '{self.address}'}}",
        ]
        if self._closed:
            (self._folder / "htpasswd").write_text(_HTPASSWD)
            lines.append(f"auth: {{htpasswd: {{realm: test, path: {self._folder}/htpasswd}}}}")
        if self._realm:
            self._make_certificate()
            lines.append(
                f"auth: {{token: {{realm: '{self._realm}', service: test, issuer: test, "
                f"rootcertbundle: {self._folder}/tokens.pem}}}}"
            )
        config = self._folder / "config.yml"
        config.write_text("\n".join(lines) + "\n")
        self._serve(config, [*self._engine.enter("--net", "--pid")], self._engine.connect)
        if self._near:
            self._serve(config, [], lambda port, s: socket.create_connection(("127.0.0.1", port), limit(s)))

    def _make_certificate(self) -> None:
        """Whose tokens it takes: nobody's that the tests have."""
        words = "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=test -days 1"
        files = ["-keyout", f"{self._folder}/tokens-key.pem", "-out", f"{self._folder}/tokens.pem"]
        subprocess.run(["openssl", *words.split(), *files], check=True, capture_output=True)

    def _serve(self, config: Path, inside: list[str], connect: Callable[[int, float], socket.socket]) -> None:
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(
                # Dies with the process that this one can kill, and with the engine in any case.
                [*inside, "setpriv", "--pdeathsig", "KILL", "docker-registry", "serve", str(config)],
                env={"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        wait_until(
            lambda: self._answers(connect) or process.poll() is not None,
            every_s=0.02,
            why="the registry answers",
        )
        assert process.poll() is None, (self._folder / "log").read_text()[-2000:]

    def stop(self) -> None:
        while self._processes:
            process = self._processes.pop()
            process.kill()
            process.wait(limit(60))

    def push(self, source: str, name: str) -> str:
        """Put an image of the engine there; returns the name under which it can be pulled."""
        full = f"{self.address}/{name}"
        tag(self._engine, full, source)
        repository, _, version = full.rpartition(":")
        auth: Any = {"username": USER, "password": PASSWORD} if self._closed else None
        for line in self._engine.client.api.push(
            repository, tag=version, auth_config=auth, stream=True, decode=True
        ):
            assert "error" not in line, f"push of {full}: {line}"
        return full

    def _answers(self, connect: Callable[[int, float], socket.socket]) -> bool:
        with contextlib.suppress(OSError), connect(self._port, 5) as link:
            link.sendall(b"GET /v2/ HTTP/1.0\r\n\r\n")
            return b"HTTP/1." in link.recv(64)
        return False
