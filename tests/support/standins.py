"""Stand-ins for the images that a deployment takes from a registry, made of what this machine has.

``python:3.N-slim`` from the Python that runs the tests, ``postgres`` and ``redis`` from the servers in the
wheels, each with the shared libraries it needs and busybox for a shell. They behave like the originals in
what docker-compose.yml relies on: paths, users, variables. Nothing is fetched.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable
from pathlib import Path

from config.local.servers import postgres_programs, redis_program
from tests.support.engines import Engine

PYTHON, POSTGRES, REDIS = "gantry-standin/python:3", "gantry-standin/postgres:1", "gantry-standin/redis:1"

_STDLIB_LEFT_OUT = {
    "test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "site-packages", "dist-packages",
    "pydoc_data",
}  # fmt: skip
_USERS = """root:x:0:0::/root:/bin/sh
server:x:999:999::/:/bin/sh
nobody:x:65534:65534::/:/bin/sh
"""
_GROUPS = "root:x:0:\nserver:x:999:\nnogroup:x:65534:\n"

#: What the official image's entry point does for a new data folder, as far as docker-compose.yml asks for it.
_POSTGRES_ENTRY = """#!/bin/sh
set -eu
umask 077
PGDATA=/var/lib/postgresql/data/pgdata
PATH=/opt/pg/bin:$PATH
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" \
        --auth-local=trust --auth-host=scram-sha-256 --locale=C $POSTGRES_INITDB_ARGS \
        >/tmp/initdb.log 2>&1 || { cat /tmp/initdb.log; exit 1; }
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -D "$PGDATA" postgres >/dev/null
fi
exec "$@" -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql
"""


class Root:
    """The root file system of an image to be."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w")  # noqa: SIM115 closed by finish
        self._linked: list[Path] = []
        self._wanted: list[str] = []
        self.multiarch = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
        for name, mode in (
            ("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("run", 0o755),
            ("var", 0o755), ("var/tmp", 0o1777), ("usr/bin", 0o755), ("usr/local/bin", 0o755),
        ):  # fmt: skip
            self.folder(name, mode)
        self.text("etc/passwd", _USERS)
        self.text("etc/group", _GROUPS)
        self.text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
        busybox = shutil.which("busybox", path="/bin:/usr/bin")
        assert busybox, "the deployment tests need the Debian package busybox-static"
        self.file("bin/busybox", Path(busybox))
        listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout
        for applet in set(listed.split()) - {"busybox"}:
            self.link(f"bin/{applet}", "busybox")
        self.link("usr/bin/env", "/bin/busybox")

    def folder(self, name: str, mode: int = 0o755, owner: int = 0) -> None:
        item = tarfile.TarInfo(name)
        item.type, item.mode, item.uid, item.gid = tarfile.DIRTYPE, mode, owner, owner
        self._tar.addfile(item)

    def text(self, name: str, text: str, mode: int = 0o644) -> None:
        item = tarfile.TarInfo(name)
        data = text.encode()
        item.mode, item.size = mode, len(data)
        self._tar.addfile(item, io.BytesIO(data))

    def link(self, name: str, target: str) -> None:
        item = tarfile.TarInfo(name)
        item.type, item.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(item)

    def file(self, name: str, path: Path) -> None:
        """One file with its mode."""
        self._tar.add(path.resolve(), name, recursive=False, filter=_as_root)

    def program(self, name: str, path: Path) -> None:
        """A program or extension module, with the shared libraries that it needs."""
        self.file(name, path)
        self.needs(path)

    def needs(self, path: Path) -> None:
        self._linked.append(path.resolve())

    def library(self, name: str) -> None:
        """A library of this machine that something loads by name, if it has it."""
        self._wanted.append(name)

    def tree(self, name: str, path: Path, left_out: Iterable[str] = ()) -> None:
        out = set(left_out)
        for root, folders, files in os.walk(path):
            folders[:] = [folder for folder in folders if folder not in out]
            for each in files:
                found = Path(root, each)
                if found.exists() and not each.endswith((".a", ".opt-1.pyc", ".opt-2.pyc")):
                    self.file(f"{name}/{found.relative_to(path)}", found)

    def finish(self) -> bytes:
        done = subprocess.run(["ldd", *self._linked], capture_output=True, text=True, check=False)
        found = [Path(each) for each in re.findall(r"(/\S+\.so[.\d]*) \(0x", done.stdout)]
        cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
        for name in self._wanted:
            line = re.search(rf"^\s*{re.escape(name)}\.so\.\d+ .*=> (/\S+)$", cache, re.MULTILINE)
            found += [Path(line[1])] if line else []
        for library in {library.name: library for library in found}.values():
            # The loader is found by its full name, everything else in the usual place.
            loader = library.name.startswith("ld-linux")
            name = str(library)[1:] if loader else f"lib/{self.multiarch}/{library.name}"
            self._tar.add(library.resolve(), name, recursive=False, filter=_as_root)
        self._tar.close()
        return self._buffer.getvalue()


def _as_root(item: tarfile.TarInfo) -> tarfile.TarInfo:
    item.uid = item.gid = 0
    item.uname = item.gname = ""
    return item


def _python() -> bytes:
    """This interpreter in /usr/local with its library and pip, as in the official image."""
    root = Root()
    here = f"python3.{sys.version_info.minor}"
    root.program(f"usr/local/bin/{here}", Path(sys.executable).resolve())
    for name in ("python", "python3"):
        root.link(f"usr/local/bin/{name}", here)
    stdlib = Path(sysconfig.get_path("stdlib"))
    root.tree(f"usr/local/lib/{here}", stdlib, {*_STDLIB_LEFT_OUT, *_config_folders(stdlib)})
    import pip

    # Debian's Python looks for packages in another folder than everybody's.
    for folder in ("site-packages", "dist-packages"):
        root.tree(f"usr/local/lib/{here}/{folder}/pip", Path(pip.__file__).parent)
    for module in (stdlib / "lib-dynload").glob("*.so"):
        root.needs(module)
    # Compiled packages bring their libraries, but for those that every Debian has.
    for name in ("libgcc_s", "libstdc++", "libpthread", "libdl", "librt", "libutil", "libm", "libz"):
        root.library(name)
    # The worker's image would take it from Debian.
    iptables = Path(shutil.which("iptables", path="/usr/sbin:/sbin") or "").resolve()
    root.program("usr/sbin/xtables-nft-multi", iptables)
    for name in ("iptables", "iptables-restore"):
        root.link(f"usr/sbin/{name}", "xtables-nft-multi")
    for module in Path(f"/usr/lib/{root.multiarch}/xtables").glob("lib[xi]*t*_*.so"):
        root.program(str(module)[1:], module)
    root.file("usr/share/zoneinfo/UTC", Path("/usr/share/zoneinfo/UTC"))
    return root.finish()


def _config_folders(stdlib: Path) -> set[str]:
    return {entry.name for entry in stdlib.glob("config-*")}


def _postgres() -> bytes:
    programs = postgres_programs()
    root = Root()
    for name in ("postgres", "initdb", "pg_isready", "pg_dump", "pg_restore", "psql", "createdb"):
        root.program(f"opt/pg/bin/{name}", programs / name)
        root.link(f"usr/local/bin/{name}", f"/opt/pg/bin/{name}")
    for name in ("lib", "share"):
        root.tree(f"opt/pg/{name}", programs.parent / name, {"pgxs", "pkgconfig", "locale", "doc", "man"})
    root.text("usr/local/bin/docker-entrypoint.sh", _POSTGRES_ENTRY, 0o755)
    root.folder("var/lib/postgresql", 0o755, 999)
    root.folder("var/lib/postgresql/data", 0o700, 999)
    root.folder("var/run/postgresql", 0o777, 999)
    return root.finish()


def _redis() -> bytes:
    server = redis_program().resolve()
    root = Root()
    root.program("usr/local/bin/redis-server", server)
    client = server.with_name("redis-cli")
    root.program(
        "usr/local/bin/redis-cli", client if client.exists() else Path(shutil.which("redis-cli") or "")
    )
    root.folder("data", 0o700, 999)
    return root.finish()


def load(engine: Engine) -> None:
    """Give an engine the three images."""
    changes = {
        PYTHON: (_python, ['CMD ["python3"]', "ENV PATH=/usr/local/bin:/usr/bin:/bin"]),
        POSTGRES: (
            _postgres,
            ["USER 999", "VOLUME /var/lib/postgresql/data", 'ENTRYPOINT ["docker-entrypoint.sh"]',
             "ENV PGHOST=/var/run/postgresql", "ENV PATH=/usr/local/bin:/usr/bin:/bin"],
        ),
        REDIS: (_redis, ["VOLUME /data", "ENV PATH=/usr/local/bin:/usr/bin:/bin"]),
    }  # fmt: skip
    for image, (make, how) in changes.items():
        name, tag = image.split(":")
        engine.client.api.import_image_from_data(make(), repository=name, tag=tag, changes=how)
