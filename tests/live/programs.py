"""Servers with one peculiarity each. Prints the port, then serves until killed.

echo       answers each request with its path and body, keep-alive
null       the same, with accept(fd, NULL, NULL)
prefork    accepts in three forked children
dup        answers through dup'd descriptors; the original is closed first
sendfile   a head by write, a file by sendfile
big        5 MB by one write call
ipv6       listens on ::1
instant    closes right after the answer
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import tempfile
import threading

BIG = b"0123456789abcdef" * 327680  # 5 MiB


def read_request(sock: socket.socket) -> tuple[bytes, bytes] | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    while len(body) < length:
        body += sock.recv(65536)
    return head.split(b" ")[1], body


def answer(path: bytes, body: bytes) -> bytes:
    content = b'{"path":"%s","body":"%s"}' % (path, body)
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content) + content


def serve(sock: socket.socket, mode: str) -> None:
    with sock:
        while True:
            request = read_request(sock)
            if request is None:
                return
            if mode == "big":
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BIG) + BIG)
            elif mode == "sendfile":
                with tempfile.TemporaryFile() as file:
                    file.write(b"f" * 100_000)
                    file.flush()
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                    sent = 0
                    while sent < 100_000:
                        sent += os.sendfile(sock.fileno(), file.fileno(), sent, 100_000 - sent)
            elif mode == "dup":
                copy = os.dup(sock.fileno())
                sock.close()
                os.write(copy, answer(*request))
                second = os.dup2(copy, copy + 20)
                os.close(copy)
                data = os.read(second, 65536)
                os.write(second, answer(data.split(b" ")[1], b""))
                os.close(second)
                return
            else:
                sock.sendall(answer(*request))
            if mode == "instant":
                return


def main() -> None:
    mode = sys.argv[1]
    family = socket.AF_INET6 if mode == "ipv6" else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::1" if mode == "ipv6" else "127.0.0.1", 0))
    listener.listen(512)
    print(listener.getsockname()[1], flush=True)
    if mode == "prefork":
        for _ in range(2):
            if os.fork() == 0:
                break
    libc = ctypes.CDLL(None)
    while True:
        if mode == "null":
            sock = socket.socket(fileno=libc.accept(listener.fileno(), None, None))
        else:
            sock, _ = listener.accept()
        if mode in ("instant", "dup", "prefork"):
            serve(sock, mode)
        else:
            threading.Thread(target=serve, args=(sock, mode), daemon=True).start()


if __name__ == "__main__":
    main()
