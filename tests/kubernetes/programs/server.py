"""A server of the tests: an answer with a body to GET of what it has, 404 to the rest; POST gets its body back.

server.py PORT [CERTIFICATE-AND-KEY AUTHORITY]     with these: TLS, and clients need a certificate of that authority
"""

import http.server
import json
import ssl
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    """Keep-alive, with a length on each answer."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Anything below /missing and /etc is not there."""
        found = not self.path.startswith(("/missing", "/etc"))
        self.answer(200 if found else 404, json.dumps({"path": self.path, "found": found}).encode())

    def do_POST(self) -> None:
        """The body as it came."""
        self.answer(201, self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, status: int, body: bytes) -> None:
        """Head and body in two writes, as most servers do it."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


server = http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Handler)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    context.load_verify_locations(sys.argv[3])
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
