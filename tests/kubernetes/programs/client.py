"""A client of the tests with one connection: each line of its input is METHOD PATH [BODY]; prints the status of each answer.

client.py HOST PORT [CERTIFICATE-AND-KEY AUTHORITY]
"""

import http.client
import ssl
import sys

host, port, *tls = sys.argv[1:]
if tls:
    context = ssl.create_default_context(cafile=tls[1])
    context.load_cert_chain(tls[0])
    context.check_hostname = False  # pods are called by their addresses
    connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, int(port), context=context, timeout=20)
else:
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
for line in sys.stdin:
    method, path, body = [*line.rstrip("\n").split(" ", 2), ""][:3]
    connection.request(method, path, body or None, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    answer.read()
    print(answer.status, flush=True)
