"""The endpoints of a site, as they are sent: form only, nothing is looked up. Pure.

Where an address leads is checked when it is used: a denied one is accepted here and refused by each attempt.
Source: contract page 40, "Ours, shapes"; ``options`` are those of ``workers.vocabulary.transfers.reach``.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Any, Final

from workers import addresses
from workers.vocabulary.errors import InvalidInput
from workers.vocabulary.transfers.reach import Protocol
from workqueue import fields

MOST: Final = 32
#: Their libraries follow other addresses by themselves, or they are the node itself: operators' sites only.
OPERATORS: Final = frozenset((Protocol.LOCAL, Protocol.GRIDFTP, Protocol.XROOTD))
#: Spoken to over HTTP.
_WEB: Final = frozenset((Protocol.WEBDAV, Protocol.S3, Protocol.SWIFT))
_SCHEMES: Final = ("http", "https")
_TEXT_MOST: Final = 4096


def parse(given: object) -> list[dict[str, Any]]:
    """[{protocol, host, port, path, options}], every key there; the preferred one first."""
    if not isinstance(given, list) or not 1 <= len(given) <= MOST:
        raise InvalidInput(
            f"endpoints must be a list of 1 to {MOST} objects with protocol, host, port and path",
            field="endpoints",
        )
    return [_endpoint(item, f"endpoints[{number}]") for number, item in enumerate(given)]


def of_operators(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """The protocols among them that only sites made by operators may use."""
    return sorted({each["protocol"] for each in found if each["protocol"] in OPERATORS})


def folders(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """The folders of those that are LOCAL."""
    return [each["path"] for each in found if each["protocol"] == Protocol.LOCAL]


def _endpoint(given: object, where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InvalidInput(f"{where} must be an object with protocol, host, port and path", field=where)
    try:
        protocol = _protocol(given)
        path = fields.text(given, "path", _TEXT_MOST) or "/"
        if ".." in path.split("/"):
            raise InvalidInput("path has '..' in it: write the folder itself", field="path")
        if protocol == Protocol.LOCAL:
            return {"protocol": protocol.value, "host": "", "port": 0, "path": _folder(path), "options": {}}
        options = _options(given, protocol)
        port = fields.integer(given, "port", 0, 65_535) or 0
        host = fields.text(given, "host", 255) or ""
        if host or "auth_url" not in options:
            host = _host(host, port, "https" if protocol in _WEB else "site")
        return {
            "protocol": protocol.value,
            "host": host,
            "port": port,
            "path": path,
            "options": options,
        }
    except InvalidInput as error:
        raise InvalidInput(f"{where}.{error.message}", field=f"{where}.{error.field}") from None


def _protocol(given: Mapping[str, Any]) -> Protocol:
    name = fields.required(given, "protocol", 16, f"one of {', '.join(Protocol)}").upper()
    try:
        return Protocol.SFTP if name == "SSH" else Protocol(name)
    except ValueError:
        raise InvalidInput(f"protocol must be one of {', '.join(Protocol)}", field="protocol") from None


def _folder(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidInput("path must begin with a slash: it is a folder of the node", field="path")
    return "/" + posixpath.normpath(path).strip("/")


def _host(host: str, port: int, scheme: str) -> str:
    """The host in its one usual form."""
    if not host:
        raise InvalidInput("host is missing: name the server", field="host")
    if any(mark in host for mark in "/?#@[]") and not (host.startswith("[") and host.endswith("]")):
        raise InvalidInput("host must be a name or an address, nothing else", field="host")
    bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
    schemes = (scheme,)
    try:
        return addresses.parse(f"{scheme}://{bracketed}:{port or 443}/", field="host", schemes=schemes).host
    except InvalidInput as error:
        raise InvalidInput(error.message, field="host") from None


def _options(given: Mapping[str, Any], protocol: Protocol) -> dict[str, str]:
    options = given.get("options")
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise InvalidInput("options must be an object", field="options")
    options = {f"options.{name}": value for name, value in options.items()}
    found = {}
    if protocol in _WEB and (scheme := fields.text(options, "options.scheme", 8)):
        if scheme not in _SCHEMES:
            raise InvalidInput("options.scheme must be http or https", field="options.scheme")
        found["scheme"] = scheme
    if protocol == Protocol.SWIFT and (url := fields.text(options, "options.auth_url", _TEXT_MOST)):
        addresses.parse(url, field="options.auth_url")
        found["auth_url"] = url
    if protocol == Protocol.S3 and (region := fields.text(options, "options.region", 64)):
        found["region"] = region
    return found
