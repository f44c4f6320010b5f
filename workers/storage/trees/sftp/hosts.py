"""Which host key a server must have. Nothing is ever accepted because it is the first that is seen."""

from __future__ import annotations

from typing import Final

import asyncssh

from workers.storage.trees.base import StorageFailed, Trouble
from workers.vocabulary.transfers.reach import Reach

#: Keys and authorities that are trusted, and revoked keys: asyncssh's "known hosts", with no X.509.
Trusted = tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]

#: What servers are asked for after the types of the keys that are known.
_USUAL: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)


class Host(asyncssh.SSHClient):
    """What asyncssh asks about the server of one connection; it remembers the key that was refused."""

    def __init__(self, reach: Reach, trusted: Trusted) -> None:
        self._reach = reach
        self._trusted = trusted
        self._offered: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Asked about a key that is not trusted."""
        self._offered = key
        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self._offered = key
        return False

    def refusal(self, words: str) -> StorageFailed:
        """Why the connection was not made; ``words`` are asyncssh's."""
        where, known = self._reach.shown, [*self._trusted[0], *self._trusted[1]]
        if self._offered is None:
            return StorageFailed(f"{where}: its host key is refused: {words}", Trouble.DENIED)
        offered = _fingerprint(self._offered)
        if known:
            due = ", ".join(sorted({_fingerprint(key) for key in known}))
            return StorageFailed(
                f"{where}: the host has the key {offered}, the site's host keys name {due}: somebody may be "
                f"in between. If the host has a new key, add it to the site's host keys",
                Trouble.DENIED,
            )
        return StorageFailed(
            f"{where}: the host is not known: it has the key {offered}. If that is right, add it to the "
            f"site's host keys",
            Trouble.DENIED,
        )


def trusted(reach: Reach, address: str) -> Trusted:
    """What the site's host keys say of this host at ``address``. Raises StorageFailed."""
    found: Trusted = ([], [], [])
    for number, line in enumerate(reach.host_keys, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            found[0].append(asyncssh.import_public_key(text))
        except asyncssh.KeyImportError:
            _add_known_hosts(found, text, reach, address, number)
    return found


def _add_known_hosts(found: Trusted, text: str, reach: Reach, address: str, number: int) -> None:
    try:
        known = asyncssh.import_known_hosts(text)
    except ValueError as error:
        raise StorageFailed(
            f"{reach.shown}: line {number} of the site's host keys is neither a line of known_hosts nor "
            f'"type base64": {error}',
            Trouble.DENIED,
        ) from error
    port = reach.port or 22
    matching = known.match(reach.host, address, None if port == 22 else port)
    # Of a port other than 22 asyncssh does not see a line that only revokes.
    alone = known.match(f"[{reach.host}]:{port}", "", None)[2]
    for keys, more in zip(found, (*matching[:2], [*matching[2], *alone]), strict=True):
        keys.extend(more)


def algorithms(found: Trusted) -> list[str]:
    """Signatures that are asked for: those of known keys first, so that a host with several keys shows one
    that is known; then the usual ones, to be able to name what is offered instead."""
    spoken = [name.decode("ascii") for key in found[0] for name in key.sig_algorithms]
    known = [name for name in spoken if name in _USUAL]  # of an RSA key without SHA-1
    certified = [f"{name}-cert-v01@openssh.com" for name in _USUAL] if found[1] else []
    return list(dict.fromkeys([*known, *certified, *_USUAL]))


def _fingerprint(key: asyncssh.SSHKey) -> str:
    return f"{key.get_algorithm()} {key.get_fingerprint()}"
