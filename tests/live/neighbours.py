"""What a local user can do to the health port. A program of its own, so that another user can run it:

    neighbours.py slow PORT NUMBER      so many connections that send a byte every half second, opened again when closed
    neighbours.py many PORT NUMBER      so many connections that say nothing, opened at once and kept
    neighbours.py resets PORT RATE      so many connections a second that are reset in the middle of a request

It prints a line when the attack is under way and goes on until its standard input ends. Its process is called "neighbour",
so that a line of the log that names it can be told from those about others.
"""

import contextlib
import select
import socket
import struct
import sys
import time

RESET = struct.pack("=ii", 1, 0)


def connect(port: int) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(5)
    sock.connect(("127.0.0.1", port))
    return sock


def over(seconds: float) -> bool:
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def slow(port: int, number: int) -> None:
    socks: list[socket.socket] = []
    said = False
    while not over(0.5):
        alive = []
        for sock in socks:
            try:
                sock.send(b"G")
                alive.append(sock)
            except OSError:
                sock.close()
        socks = alive
        for _ in range(number - len(socks)):
            with contextlib.suppress(OSError):
                socks.append(connect(port))
        if not said:
            print("under way", flush=True)
            said = True


def many(port: int, number: int) -> None:
    socks = []
    for _ in range(number):
        with contextlib.suppress(OSError):
            socks.append(connect(port))
    print("under way", flush=True)
    while not over(1):
        pass


def resets(port: int, rate: int) -> None:
    print("under way", flush=True)
    started, done = time.monotonic(), 0
    while not over(0.005):
        while done < (time.monotonic() - started) * rate:
            done += 1
            with contextlib.suppress(OSError), connect(port) as sock:
                sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: h\r\n" + (b"\r\n" if done % 2 else b""))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


if __name__ == "__main__":
    with open("/proc/self/comm", "w") as comm:
        comm.write("neighbour")
    {"slow": slow, "many": many, "resets": resets}[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
