"""libglobus_ftp_client by ctypes: its structures, its errors, and letting it work."""

from __future__ import annotations

import ctypes
import time
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from typing import Any

#: How long it works at most before somebody looks around.
TOLD_S = 0.5
STREAM, EXTENDED, _IMAGE = ord("S"), ord("E"), ord("I")
_NO_HANDSHAKE = ord("N")
_GLOBAL_SPACE = -2
DONE = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_void_p)
DATA = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_int64, c_int)
BEGIN = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_char_p, c_char_p, c_int)
MARK = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, ctypes.c_long, ctypes.c_char, c_int, c_int, c_int64)
END = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_int)


class _Time(ctypes.Structure):
    """struct timespec"""

    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class Calendar(ctypes.Structure):
    """struct tm of glibc, with room for what follows its nine numbers."""

    _fields_ = [("numbers", c_int * 9), ("rest", ctypes.c_byte * 64)]


class _Parallelism(ctypes.Structure):
    _fields_ = [("mode", c_int), ("size", c_size_t)]


class _Dcau(ctypes.Structure):
    """Who the data connection's other end has to be."""

    _fields_ = [("mode", c_int), ("subject", c_char_p)]


class Failed(Exception):
    """What the library or the server said. ``code`` is the FTP reply's, 0 where there was none."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class Library:
    """libglobus_ftp_client with one handle whose connections are kept. Raises OSError where it is not."""

    def __init__(self) -> None:
        self.common = ctypes.CDLL("libglobus_common.so.0")
        self.client = ctypes.CDLL("libglobus_ftp_client.so.2")
        self.common.globus_error_get.restype = c_void_p
        self.common.globus_error_print_friendly.restype = c_void_p
        self.common.globus_error_print_friendly.argtypes = [c_void_p]
        self.common.globus_object_free.argtypes = [c_void_p]
        self.common.globus_callback_space_poll.argtypes = [POINTER(_Time), c_int]
        self.client.globus_error_ftp_error_get_code.argtypes = [c_void_p]
        self._free = ctypes.CDLL(None).free
        self._free.argtypes = [c_void_p]
        self.common.globus_thread_set_model(b"none")
        for library, module in (
            (self.client, "globus_i_ftp_client_module"),
            (self.client, "globus_i_ftp_client_perf_plugin_module"),
        ):
            if self.common.globus_module_activate(byref(ctypes.c_byte.in_dll(library, module))):
                raise OSError(f"{module} cannot be activated")
        attributes = c_void_p()
        self("handleattr_init", byref(attributes))
        self("handleattr_set_cache_all", byref(attributes), 1)
        self._attributes: dict[tuple[int, int], c_void_p] = {}
        self.handle = c_void_p()
        self("handle_init", byref(self.handle), byref(attributes))

    def __call__(self, name: str, *args: Any) -> None:
        """globus_ftp_client_<name>. Raises Failed."""
        function = getattr(self.client, f"globus_ftp_client_{name}")
        function.restype = c_uint32
        result = function(*args)
        if result:
            error = self.common.globus_error_get(c_uint32(result))
            failed = self.failed(error)
            self.common.globus_object_free(error)
            raise failed

    def failed(self, error: int | None) -> Failed:
        text = self.common.globus_error_print_friendly(error)
        code = int(self.client.globus_error_ftp_error_get_code(error))
        said = ctypes.string_at(text).decode("utf-8", "replace") if text else ""
        self._free(text)
        return Failed(said, code)

    def poll(self) -> None:
        """Let the library work until something has happened, half a second at most."""
        until = time.time() + TOLD_S
        self.common.globus_callback_space_poll(byref(_Time(int(until), int(until % 1 * 1e9))), _GLOBAL_SPACE)

    def wake(self) -> None:
        """Called in a callback: ``poll`` returns."""
        self.common.globus_callback_signal_poll()

    def freed(self, buffer: c_void_p, length: int) -> bytes:
        """The content of a buffer that the library gave us."""
        content = ctypes.string_at(buffer, length) if buffer.value else b""
        self._free(buffer)
        return content

    def attributes(self, streams: int = 1, mode: int = STREAM) -> c_void_p:
        """Of an operation: binary, in order on one connection; several only where they are asked for."""
        if (streams, mode) not in self._attributes:
            made = c_void_p()
            self("operationattr_init", byref(made))
            self("operationattr_set_type", byref(made), c_int(_IMAGE))
            self("operationattr_set_mode", byref(made), c_int(mode if streams == 1 else EXTENDED))
            if streams > 1:
                self("operationattr_set_parallelism", byref(made), byref(_Parallelism(1, streams)))
            # Contents are compared by checksums; a handshake for each file would cost more than a small file.
            self("operationattr_set_dcau", byref(made), byref(_Dcau(_NO_HANDSHAKE, None)))
            self._attributes[streams, mode] = made
        return self._attributes[streams, mode]

    def authority(self, pem: bytes) -> tuple[str, str]:
        """A certificate's hash and subject, as OpenSSL and Globus name it. Raises Failed."""
        crypto = self.client  # it brings OpenSSL along
        for name in ("BIO_new_mem_buf", "PEM_read_bio_X509", "X509_get_subject_name"):
            getattr(crypto, name).restype = c_void_p
        crypto.X509_subject_name_hash.restype = ctypes.c_ulong
        bio = c_void_p(crypto.BIO_new_mem_buf(pem, len(pem)))
        found = c_void_p(crypto.PEM_read_bio_X509(bio, None, None, None))
        crypto.BIO_free(bio)
        if not found.value:
            raise Failed("it is no certificate in PEM form")
        text = ctypes.create_string_buffer(4096)
        crypto.X509_NAME_oneline(c_void_p(crypto.X509_get_subject_name(found)), text, len(text))
        number = crypto.X509_subject_name_hash(found) & 0xFFFFFFFF
        crypto.X509_free(found)
        return f"{number:08x}", text.value.decode("latin-1")
