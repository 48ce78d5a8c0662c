"""Both ends of a conversation through the demo library, in this process: `python play.py LIBRARY SCENARIO`.

Begins when a line comes on standard input, prints the ends of its sockets, and ends with the input. Scenario "asked" waits
for another line when it has made its objects.
"""

from __future__ import annotations

import ctypes
import socket
import sys

SERVER, CLIENT = 1, 2  # enum event_role
REQUEST = b"POST /%s?n=%d HTTP/1.1\r\nHost: demo\r\nContent-Length: %d\r\n\r\n%s"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"


class Object:
    """An object of the library."""

    def __init__(self, library: ctypes.CDLL, role: int, wire: int) -> None:
        self.library = library
        self.pointer = ctypes.c_void_p(library.demo_new(role, wire))

    def bind(self, fd: int) -> None:
        """Tell it its socket."""
        self.library.demo_bind(self.pointer, fd)

    def tell(self, fd: int) -> None:
        """As bind, in a way that only a probe on demand sees."""
        self.library.demo_tell(self.pointer, fd)

    def feed(self, data: bytes) -> None:
        """What the other side sent, where there is no socket."""
        self.library.demo_feed(self.pointer, data, len(data))

    def read(self, size: int) -> bytes:
        """Exactly so many bytes, in one call if they are there."""
        data = b""
        while len(data) < size:
            room = ctypes.create_string_buffer(size - len(data))
            got = self.library.demo_read(self.pointer, room, size - len(data))
            if got <= 0:
                break
            data += room.raw[:got]
        return data

    def write(self, data: bytes) -> None:
        """All of it."""
        while data:
            data = data[self.library.demo_write(self.pointer, data, len(data)) :]

    def free(self) -> None:
        """Its end."""
        self.library.demo_free(self.pointer)


def load(path: str) -> ctypes.CDLL:
    """The library."""
    library = ctypes.CDLL(path)
    library.demo_new.restype = ctypes.c_void_p
    library.demo_read.restype = library.demo_write.restype = ctypes.c_ssize_t
    library.demo_read.argtypes = library.demo_write.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    library.demo_write.argtypes = library.demo_feed.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    return library


def exchanges(server: Object, client: Object | None, name: bytes, sizes: list[int], bind: tuple[int, int, int]) -> None:
    """Requests and answers with bodies of these sizes; ``bind``: (before which exchange, the server's fd, the client's)."""
    for number, size in enumerate(sizes):
        if number == bind[0]:
            server.bind(bind[1])
            if client is not None:
                client.bind(bind[2])
        request = REQUEST % (name, number, size, b"q" * size)
        answer = ANSWER % (size, b"a" * size)
        if client is None:
            server.feed(request)
            assert server.read(len(request)) == request
            server.write(answer)
        else:
            client.write(request)
            assert server.read(len(request)) == request
            server.write(answer)
            assert client.read(len(answer)) == answer


def main() -> None:
    """Entry."""
    library = load(sys.argv[1])
    scenario = sys.argv[2]
    print("ready", flush=True)
    sys.stdin.readline()
    sizes = [3, 700, 20000]
    if scenario == "memory":
        server = Object(library, SERVER, -1)
        exchanges(server, None, b"memory", sizes, (-1, -1, -1))
        server.free()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _address = listener.accept()
        server, client = Object(library, SERVER, far.fileno()), Object(library, CLIENT, near.fileno())
        print(*far.getsockname(), *near.getsockname(), flush=True)
        when = {"known": 0, "late": 2, "never": -1, "killed": 0, "asked": 2}[scenario]
        if scenario == "asked":
            sys.stdin.readline()
            server.bind, client.bind = server.tell, client.tell  # type: ignore[method-assign]
        exchanges(server, client, scenario.encode(), sizes, (when, far.fileno(), near.fileno()))
        if scenario != "killed":
            server.free()
            client.free()
        near.close()
        far.close()
    print("done", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
