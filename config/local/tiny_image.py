"""A tiny image for the demo, made on the spot through the Docker Engine's API: no registry is asked.

Standard library only. Must not import Django or any app.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import secrets
import shutil
import socket
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

#: Programs that are often linked statically, with arguments that make them say something.
_CANDIDATES: Final = (
    ("busybox", ["/bin/sh", "-c", "echo Hello from a container, uid $(id -u); cat /etc/motd"]),
    ("ldconfig", ["/bin/program", "--version"]),
    ("ldconfig.real", ["/bin/program", "--version"]),
    ("docker-init", ["/bin/program", "--version"]),
)
_INTERPRETER: Final = 3


class NoImage(Exception):
    """No image could be made; the text says why, in one line."""


class Engine:
    """A few calls of the Docker Engine where DOCKER_HOST or the usual socket says that it is."""

    def __init__(self) -> None:
        self.address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"

    def call(self, method: str, path: str, body: bytes | None = None) -> Any:
        """The decoded answer of the last line, or None. Raises NoImage."""
        parts = urlsplit(self.address)
        if parts.scheme == "unix":
            connection = http.client.HTTPConnection("docker", timeout=30)
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(30)
        else:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 2375, timeout=30)
        try:
            if parts.scheme == "unix":
                connection.sock.connect(parts.path)
            headers = {"Content-Type": "application/x-tar"} if body else {}
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace").strip()
        except (OSError, http.client.HTTPException) as error:
            raise NoImage(f"no Docker Engine answers at {self.address} ({error})") from None
        finally:
            connection.close()
        if answer.status >= 400:
            raise NoImage(f"the Docker Engine refused {method} {path.partition('?')[0]}: {text[:200]}")
        try:
            return json.loads(text.splitlines()[-1]) if text else None
        except ValueError:
            return None


@dataclass(frozen=True)
class Tiny:
    """An image with one program, and the arguments to run it with. ``remove`` takes it away again."""

    engine: Engine
    name: str
    program: str
    args: list[str]
    #: The worker's own network was there before.
    had_network: bool

    def remove(self) -> None:
        self.engine.call("DELETE", f"/images/{quote(self.name)}?force=1")
        if not self.had_network:
            self.engine.call("DELETE", "/networks/gantry")


def make(engine: Engine) -> Tiny:
    """Import an image made of a static program of this machine. Raises NoImage."""
    found = _static_program()
    if found is None:
        raise NoImage("no statically linked program (busybox-static) was found to make an image from")
    path, args = found
    name = f"gantry-demo:{secrets.token_hex(4)}"
    repository, _, tag = name.partition(":")
    engine.call("POST", f"/images/create?fromSrc=-&repo={repository}&tag={tag}", _packed(path))
    networks = engine.call("GET", "/networks") or []
    there = any(item.get("Name") == "gantry" for item in networks)
    return Tiny(engine, name, str(path), args, there)


def _static_program() -> tuple[Path, list[str]] | None:
    for program, args in _CANDIDATES:
        path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if path is not None and _is_static(Path(path)):
            return Path(path), args
    return None


def _is_static(path: Path) -> bool:
    """A 64-bit ELF program that names no interpreter, the loader of shared libraries."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    if data[:6] != b"\x7fELF\x02\x01":
        return False
    start = int.from_bytes(data[32:40], "little")
    size, count = int.from_bytes(data[54:56], "little"), int.from_bytes(data[56:58], "little")
    kinds = [int.from_bytes(data[start + n * size :][:4], "little") for n in range(count)]
    return _INTERPRETER not in kinds


def _packed(program: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def add(name: str, data: bytes = b"", mode: int = 0o755, link: str = "") -> None:
            item = tarfile.TarInfo(name)
            item.size, item.mode = len(data), mode
            if link:
                item.type, item.linkname = tarfile.SYMTYPE, link
            tar.addfile(item, io.BytesIO(data))

        add("bin/program", program.read_bytes())
        for applet in ("sh", "id", "cat"):
            add(f"bin/{applet}", link="program")
        add("etc/motd", b"This image was made by make demo; no registry was asked.\n", 0o644)
    return out.getvalue()
