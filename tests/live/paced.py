"""A server and a client that talk at a steady rate: paced.py RATE SECONDS CONNECTIONS PATH CODING < BODY.

Each answer has that body, under that Content-Encoding (none when it is empty). The connections take turns, and nothing is
pipelined. At the end the number of exchanges is printed.
"""

from __future__ import annotations

import os
import socket
import sys
import time


def serve(listener: socket.socket, answer: bytes, connections: int) -> None:
    """Answers of one body to requests that come whole, on connections that take turns."""
    open_ones = [listener.accept()[0] for _ in range(connections)]
    for turn in range(1 << 60):
        if not open_ones[turn % connections].recv(4096):
            return
        open_ones[turn % connections].sendall(answer)


def main() -> None:
    """Entry."""
    rate, seconds, connections = (int(a) for a in sys.argv[1:4])
    path, coding = sys.argv[4:6]
    body = sys.stdin.buffer.read()
    fields = f"Content-Encoding: {coding}\r\n" if coding else ""
    answer = f"HTTP/1.1 200 OK\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body
    request = f"GET {path} HTTP/1.1\r\nHost: paced\r\n\r\n".encode()
    listener = socket.create_server(("127.0.0.1", 0))
    if os.fork() == 0:
        serve(listener, answer, connections)
        os._exit(0)
    clients = [socket.create_connection(listener.getsockname()) for _ in range(connections)]
    listener.close()
    count = rate * seconds
    begin = time.monotonic()
    for number in range(count):
        wait = begin + number / rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        client = clients[number % len(clients)]
        client.sendall(request)
        left = len(answer)
        while left:
            left -= len(client.recv(left))
    for client in clients:
        client.close()
    os.wait()
    sys.stdout.write(f"{count}\n")


if __name__ == "__main__":
    main()
