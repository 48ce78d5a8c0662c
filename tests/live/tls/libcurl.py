"""A client of the TLS matrix: `libcurl.py LIBRARY PORT LOG` makes the connections that standard input names, one after
another, with a libcurl of the distribution, through ctypes: libcurl-nss.so.4 is NSS, libcurl-gnutls.so.4 is what git uses.
TLS 1.2, and a key of RSA: NSS signs with a key from a file in no other way.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time

from tests.live.tls.calls import Call, Reader, calls, connections, note
from tests.live.tls.clients import BED

# curl/curl.h
URL, CUSTOMREQUEST, HTTPHEADER, POSTFIELDS = 10002, 10036, 10023, 10015
POSTFIELDSIZE, BUFFERSIZE, HTTP_VERSION, SSLVERSION = 60, 98, 84, 32
CAINFO, SSLCERT, SSLKEY, NOPROXY, WRITEFUNCTION = 10065, 10025, 10087, 10177, 20011
VERSION_1_1 = 2
AT_MOST_1_2 = 6 << 16
RESPONSE_CODE, LOCAL_PORT = 0x200002, 0x20002A
WRITE_ERROR = 23

Write = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.POINTER(ctypes.c_char), ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)


class Easy:
    """A handle of libcurl, which keeps its connection from call to call."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._handle = ctypes.c_void_p(library.curl_easy_init())

    def set(self, option: int, value: str | bytes | int | ctypes.c_void_p | object) -> None:
        """curl_easy_setopt, whose third argument has any type."""
        if isinstance(value, str):
            value = value.encode()
        plain = ctypes.c_long(value) if isinstance(value, int) else value
        assert self._library.curl_easy_setopt(self._handle, ctypes.c_int(option), plain) == 0, (option, value)

    def number(self, what: int) -> int:
        """curl_easy_getinfo of a long."""
        value = ctypes.c_long()
        assert self._library.curl_easy_getinfo(self._handle, ctypes.c_int(what), ctypes.byref(value)) == 0, what
        return value.value

    def perform(self) -> int:
        """The code of a failure, or 0."""
        return int(self._library.curl_easy_perform(self._handle))

    def reset(self) -> None:
        """All options are as before the first."""
        self._library.curl_easy_reset(self._handle)

    def close(self) -> None:
        """And its connection."""
        self._library.curl_easy_cleanup(self._handle)


def exchange(library: ctypes.CDLL, easy: Easy, call: Call, port: int, log: int) -> None:
    """One request and its answer."""
    reader = Reader(call)

    @Write
    def write(data: ctypes._Pointer[ctypes.c_char], size: int, count: int, _: int) -> int:
        more = reader.take(ctypes.string_at(data, size * count))
        time.sleep(reader.pause)
        return size * count if more else 0

    fixed = {CAINFO: "ca.pem", SSLCERT: "rsa.pem", SSLKEY: "rsa.key"}
    easy.reset()
    for option, name in fixed.items():
        easy.set(option, str(BED / name))
    easy.set(NOPROXY, "*")
    easy.set(HTTP_VERSION, VERSION_1_1)
    easy.set(SSLVERSION, AT_MOST_1_2)
    easy.set(URL, f"https://localhost:{port}{call.path}")
    easy.set(CUSTOMREQUEST, call.method)
    easy.set(WRITEFUNCTION, write)
    easy.set(BUFFERSIZE, 1024 if call.reading == "partial" else 16384)
    headers = ctypes.c_void_p(None)
    if call.body:
        headers = ctypes.c_void_p(library.curl_slist_append(headers, b"Content-Type: text/plain"))
        easy.set(HTTPHEADER, headers)
        easy.set(POSTFIELDSIZE, len(call.body))
        easy.set(POSTFIELDS, call.body)
    failure = easy.perform()
    assert failure == (WRITE_ERROR if call.reading == "abandoned" else 0), (failure, call.path)
    library.curl_slist_free_all(headers)
    note(log, call, easy.number(RESPONSE_CODE), reader, ("127.0.0.1", easy.number(LOCAL_PORT)))


def main() -> None:
    name, port, log = sys.argv[1:]
    library = ctypes.CDLL(name)
    library.curl_easy_init.restype = library.curl_slist_append.restype = ctypes.c_void_p
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for line in connections():
        easy = Easy(library)
        for call in calls(line):
            exchange(library, easy, call, int(port), file)
        easy.close()


if __name__ == "__main__":
    main()
