"""A name server of the tests' own over UDP, and a resolver that asks it and nobody else."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from ipaddress import ip_address

#: Number of the question for this name, from 0 -> addresses.
Zone = Callable[[str, int], list[str]]


class NameServer:
    """Answers every question for an A or AAAA record with what ``zone`` says at that moment, TTL 0."""

    def __init__(self, zone: Zone) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data, wire = self.request
                wire.sendto(outer._answer(data, zone), self.client_address)

        self._server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _answer(self, data: bytes, zone: Zone) -> bytes:
        name, at = [], 12
        while data[at]:
            name.append(data[at + 1 : at + 1 + data[at]].decode())
            at += data[at] + 1
        host = ".".join(name)
        number = self.asked.count(host)
        self.asked.append(host)
        records = b""
        found = [ip_address(text) for text in zone(host, number)]
        for address in found:
            kind = 1 if address.version == 4 else 28
            records += struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(address.packed)) + address.packed
        return data[:2] + struct.pack("!HHHHH", 0x8180, 1, len(found), 0, 0) + data[12 : at + 5] + records

    def resolve(self, host: str) -> list[str]:
        """A resolver for ``open_url``: one question, one packet."""
        question = b"".join(bytes([len(part)]) + part.encode() for part in host.split("."))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
            wire.settimeout(30)
            head = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0)
            wire.sendto(head + question + struct.pack("!BHH", 0, 1, 1), ("127.0.0.1", self.port))
            data = wire.recv(4096)
        at = 12 + len(question) + 5
        found = []
        for _ in range(struct.unpack("!H", data[6:8])[0]):
            length = struct.unpack("!H", data[at + 10 : at + 12])[0]
            found.append(str(ip_address(data[at + 12 : at + 12 + length])))
            at += 12 + length
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
