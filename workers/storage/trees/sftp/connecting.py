"""Making a connection: the address checked, the host's key known, the account's own secrets and no others."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from typing import Any, Final

import asyncssh

from workers.addresses import AddressFailed, Deadline, permitted, system_resolver
from workers.addresses.http import CONNECT_S, MAX_ADDRESSES, look_up
from workers.storage.trees.base import StorageFailed, Trouble
from workers.storage.trees.sftp.hosts import Host, Trusted, algorithms, trusted
from workers.storage.trees.sftp.session import Session, Way
from workers.vocabulary.errors import AddressRefused
from workers.vocabulary.transfers.reach import Reach

#: What a server may send before we say that it was taken, in bytes: more than what is asked for at once.
_WINDOW: Final = 24 << 20
#: GCM first: with the processor's help it costs half of what chacha20 does.
_CIPHERS: Final = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)

# Names of users and hosts, one line per connection; packets at its debug levels: none of it is for our log.
logging.getLogger("asyncssh").setLevel(logging.CRITICAL)


async def connected(reach: Reach, stall_s: float) -> tuple[asyncssh.SSHClientConnection, Session]:
    """A connection with an SFTP session on it. Raises StorageFailed."""
    known = reach.credentials
    if not known.username:
        raise StorageFailed(f"{reach.shown}: SFTP needs a user name", Trouble.DENIED)
    if not (known.key or known.password):
        raise StorageFailed(f"{reach.shown}: SFTP needs a key or a password", Trouble.DENIED)
    sock = await _reached(reach, stall_s)
    try:
        keys = trusted(reach, sock.getpeername()[0])
        host = Host(reach, keys)
        options = _options(reach, host, keys, stall_s)
    except BaseException:
        sock.close()
        raise
    with _explained(reach, host):
        connection, _ = await asyncssh.create_connection(
            lambda: host, reach.host, reach.port or 22, tunnel=Way(sock), **options
        )
        try:
            return connection, await Session.begun(connection)
        except BaseException:
            connection.abort()
            raise


@contextmanager
def _explained(reach: Reach, host: Host) -> Iterator[None]:
    """What asyncssh raises while it connects, as StorageFailed."""
    known = reach.credentials
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        raise host.refusal(error.reason) from error
    except asyncssh.PermissionDenied as error:
        tried = " and ".join(name for name in ("key", "password") if getattr(known, name))
        raise StorageFailed(
            f"{reach.shown}: the server does not take the {tried} of {known.username}", Trouble.DENIED
        ) from error
    except asyncssh.KeyExchangeFailed as error:
        raise StorageFailed(
            f"{reach.shown}: no common way to speak: {error.reason}", Trouble.OTHER
        ) from error
    except (asyncssh.ChannelOpenError, asyncssh.SFTPError) as error:
        raise StorageFailed(f"{reach.shown}: it offers no SFTP ({error.reason})", Trouble.OTHER) from error
    except (asyncssh.Error, OSError, EOFError) as error:
        words = str(error) or "the connection was lost"
        raise StorageFailed(f"{reach.shown}: {words}", Trouble.AWAY) from error
    except ValueError as error:  # what we have asked of asyncssh: a user name that is none, ...
        raise StorageFailed(f"{reach.shown}: {error}", Trouble.OTHER) from error


def _options(reach: Reach, host: Host, keys: Trusted, stall_s: float) -> dict[str, Any]:
    known = reach.credentials
    methods = ["publickey"] if known.key else []
    methods += ["password", "keyboard-interactive"] if known.password else []
    return {
        "config": None,
        "known_hosts": (*keys, [], [], [], []),
        "server_host_key_algs": algorithms(keys),
        "x509_trusted_certs": None,
        "x509_trusted_cert_paths": [],
        "username": known.username,
        "password": known.password or None,
        "client_keys": [_private_key(reach)] if known.key else None,
        "ignore_encrypted": False,
        "agent_path": None,
        "gss_host": None,
        "preferred_auth": methods,
        "encryption_algs": _CIPHERS,
        "compression_algs": None,
        "utf8_decode_errors": "replace",
        "login_timeout": stall_s,
        "keepalive_interval": stall_s / 4,
        "keepalive_count_max": 3,
        "window": _WINDOW,
    }


async def _reached(reach: Reach, stall_s: float) -> socket.socket:
    """A connection to one of the host's addresses, checked where they are a client's word."""
    loop = asyncio.get_running_loop()
    try:
        try:
            found = [str(ip_address(reach.host))]
        except ValueError:
            asked = partial(look_up, system_resolver, reach.host, Deadline(stall_s))
            found = await loop.run_in_executor(None, asked)
        if reach.guarded:
            found = [str(address) for address in permitted(reach.host, found, "site")]
    except AddressRefused as error:
        raise StorageFailed(f"{reach.shown}: {error.message}", Trouble.REFUSED) from error
    except (OSError, AddressFailed) as error:
        raise StorageFailed(f"{reach.shown}: {error}", Trouble.AWAY) from error
    failure: OSError = OSError("it has no address")
    for address in found[:MAX_ADDRESSES]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.sock_connect(sock, (address, reach.port or 22))
        except OSError as error:  # also of a timeout
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise StorageFailed(f"{reach.shown}: no connection: {str(failure) or 'no answer'}", Trouble.AWAY)


def _private_key(reach: Reach) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_private_key(reach.credentials.key)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError) as error:
        raise StorageFailed(
            f"{reach.shown}: the private key cannot be read ({error}): give it in PEM or OpenSSH form, "
            f"without a passphrase",
            Trouble.DENIED,
        ) from error
