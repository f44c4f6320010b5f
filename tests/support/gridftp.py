"""GridFTP servers of the tests' own: Globus' server as Debian has it, on loopback, and certificates for one.

As root it is another user for files (nobody), so that there is something it may not do.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.support.cluster import free_port
from tests.support.proxy import Proxy, Upstream
from tests.support.waiting import limit, wait_until

Name = list[tuple[str, str]]

NOBODY = 65534
_OIDS = {"O": NameOID.ORGANIZATION_NAME, "CN": NameOID.COMMON_NAME}
_PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
#: It may do whatever its user may: SEQUENCE { SEQUENCE { id-ppl-inheritAll } }
_INHERIT_ALL = bytes.fromhex("300c300a06082b06010505071501")


class GridFtp:
    """One server. Without an authority it lets anybody in (``ftp://``), else those whom ``authority`` knows
    (``gsiftp://localhost``)."""

    def __init__(self, folder: Path, authority: Authority | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        #: What comes before its command.
        self.under: list[str] = []
        self._authority = authority
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers; at the same port again after ``kill``."""
        program = shutil.which("globus-gridftp-server", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "apt install globus-gridftp-server-progs"
        command = [*self.under, program, "-p", str(self.port), "-home-dir", "/", "-daemon"]
        command += ["-control-interface", "127.0.0.1", "-data-interface", "127.0.0.1"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        if self._authority is None:
            command += ["-aa"]
            if os.geteuid() == 0:
                command += ["-anonymous-user", "nobody"]
        else:
            environment |= self._authority.environment
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd="/", start_new_session=True
            )
        wait_until(self._answers, why=f"the GridFTP server listens at {self.port}")

    def kill(self) -> None:
        """All of it, also the processes of its sessions."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError((self.folder / "server.log").read_text())
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=limit(5)) as peer:
                return peer.recv(4) == b"220 "
        except OSError:
            return False


class DataWire(Proxy):
    """A network before a server without certificates, data's connections included: their ports the server
    tells in its replies (RFC 959, 227; RFC 2428, 229). Bits are turned over in data only."""

    def __init__(self, upstream: Upstream) -> None:
        super().__init__(upstream)
        self._wires = ExitStack()

    def __exit__(self, *about: Any) -> None:
        super().__exit__(*about)
        self._wires.close()

    def passed_on(self, data: bytes, outward: bool) -> bytes:
        if outward:
            return data
        data = re.sub(rb"(227 [^(]*\(127,0,0,1),([0-9]+),([0-9]+)\)", self._passive, data)
        return re.sub(rb"(229 [^(]*\(\|\|\|)([0-9]+)\|\)", self._extended, data)

    def _passive(self, found: re.Match[bytes]) -> bytes:
        port = self._wire(int(found[2]) * 256 + int(found[3]))
        return b"%s,%d,%d)" % (found[1], port // 256, port % 256)

    def _extended(self, found: re.Match[bytes]) -> bytes:
        return b"%s%d|)" % (found[1], self._wire(int(found[2])))

    def _wire(self, port: int) -> int:
        """A wire to a port of the server's; ours, instead of it."""
        wire = self._wires.enter_context(_Content(("127.0.0.1", port)))
        wire._flips = self._flips
        return wire.port


class _Content(Proxy):
    """Where a connection's end is the file's: it is handed on, once the rest has arrived."""

    def ended(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def open_folder() -> Path:
    """A new folder that the server's account can enter (pytest's are closed to it); the caller removes it."""
    folder = Path(tempfile.mkdtemp(prefix="gantry-served-"))
    folder.chmod(0o755)
    return folder


def hand_over(path: bytes | Path) -> None:
    """To the account that the server becomes."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)


class Authority:
    """A certificate authority in a folder, a server's certificate of it, and proxies of users that it signs.

    ``environment``: what a server needs to know; of users it knows ``user``.
    """

    def __init__(self, folder: Path, name: str = "Authority") -> None:
        self.folder = folder
        self._name = [("O", "Test"), ("CN", name)]
        self._key = _key()
        own = x509.BasicConstraints(ca=True, path_length=None)
        self.pem = _pem(self._signed(self._name, self._key, own, critical=True))
        host_key = _key()
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        host = self._signed([("O", "Test"), ("CN", "localhost")], host_key, names)
        _write(folder / "host.crt", _pem(host), 0o644)
        _write(folder / "host.key", _key_pem(host_key), 0o600)
        account = pwd.getpwuid(NOBODY if os.geteuid() == 0 else os.geteuid()).pw_name
        _write(folder / "gridmap", f'"/O=Test/CN=user" {account}\n', 0o644)
        trusted = folder / "trusted"
        trusted.mkdir()
        digest = subprocess.check_output(["openssl", "x509", "-noout", "-hash"], input=self.pem, text=True)
        _write(trusted / f"{digest.strip()}.0", self.pem, 0o644)
        rights = "pos_rights globus CA:sign\ncond_subjects globus '\"*\"'\n"
        policy = f"access_id_CA X509 '/O=Test/CN={name}'\n{rights}"
        _write(trusted / f"{digest.strip()}.signing_policy", policy, 0o644)
        self.environment = {
            "X509_CERT_DIR": str(trusted),
            "X509_USER_CERT": str(folder / "host.crt"),
            "X509_USER_KEY": str(folder / "host.key"),
            "GRIDMAP": str(folder / "gridmap"),
        }

    def proxy(self, user: str = "user", *, ended: bool = False) -> str:
        """A proxy certificate (RFC 3820), its key, and the user's certificate, in PEM."""
        name, user_key, key = [("O", "Test"), ("CN", user)], _key(), _key()
        certificate = self._signed(name, user_key)
        proxy = _signed(
            [*name, ("CN", "4711")],
            key,
            issuer=name,
            by=user_key,
            extension=x509.UnrecognizedExtension(_PROXY_CERT_INFO, _INHERIT_ALL),
            critical=True,
            ended=ended,
        )
        return _pem(proxy) + _key_pem(key) + _pem(certificate)

    def _signed(
        self,
        name: Name,
        key: rsa.RSAPrivateKey,
        extension: x509.ExtensionType | None = None,
        *,
        critical: bool = False,
    ) -> x509.Certificate:
        return _signed(name, key, issuer=self._name, by=self._key, extension=extension, critical=critical)


def _signed(
    name: Name,
    key: rsa.RSAPrivateKey,
    *,
    issuer: Name,
    by: rsa.RSAPrivateKey,
    extension: x509.ExtensionType | None,
    critical: bool,
    ended: bool = False,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_x509_name(name))
        .issuer_name(_x509_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=-1 if ended else 10))
        .add_extension(_USAGE if not isinstance(extension, x509.BasicConstraints) else _SIGNS, critical=True)
    )
    if extension is not None:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(by, hashes.SHA256())


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _x509_name(name: Name) -> x509.Name:
    return x509.Name([x509.NameAttribute(_OIDS[key], value) for key, value in name])


def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()


def _write(path: Path, text: str, mode: int) -> None:
    path.write_text(text)
    path.chmod(mode)


_USAGE, _SIGNS = _usage(signs=False), _usage(signs=True)
