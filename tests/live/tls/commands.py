"""Clients of the TLS matrix that are commands: `commands.py curl|wget PORT LOG`, a process for each connection.

curl makes all exchanges of a connection (`next` between them) and tells the address that it had. wget takes a list of
URLs, with one method and one body for all; it does not say which address it had. Both stall by a limit of their speed. When
an answer is abandoned, curl gives up by itself, and wget is killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.live.tls.calls import ABANDONED_AFTER, Call, calls
from tests.live.tls.clients import BED, in_threads


def write(log: int, call: Call, status: int, body: Path, local: str) -> None:
    """A line of the log."""
    data = body.read_bytes() if body.exists() else b""
    line = {
        "number": call.number,
        "status": status,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "local": local,
    }
    os.write(log, json.dumps(line).encode() + b"\n")


def curl_options(call: Call, port: int, directory: Path) -> list[str]:
    """Lines of a configuration file for one exchange."""
    lines = [
        f'url = "https://127.0.0.1:{port}{call.path}"',
        f"request = {call.method}",
        f'cacert = "{BED}/ca.pem"',
        f'cert = "{BED}/client.pem"',
        f'key = "{BED}/client.key"',
        f'output = "{directory}/{call.number}.answer"',
        'write-out = "%{json}\\n"',
        "http1.1",
        "silent",
    ]
    if call.body:
        body = directory / f"{call.number}.request"
        body.write_bytes(call.body)
        lines += [f'data-binary = "@{body}"', 'header = "Content-Type: text/plain"']
    if call.reading == "stalled":
        lines.append("limit-rate = 8M")
    elif call.reading == "partial":
        lines.append("limit-rate = 200k")
    elif call.reading == "abandoned":
        lines += [f"limit-rate = {ABANDONED_AFTER}", "max-time = 0.3"]
    return lines


def curl(port: int, log: int, line: str, directory: Path) -> None:
    """A connection by curl."""
    made = list(calls(line))
    options = "\nnext\n".join("\n".join(curl_options(call, port, directory)) for call in made)
    done = subprocess.run(
        ["curl", "--disable", "--noproxy", "*", "--config", "-"], input=options, capture_output=True, text=True, check=False
    )
    told: list[dict[str, Any]] = [json.loads(text) for text in done.stdout.splitlines()]
    allowed = 28 if made[-1].reading == "abandoned" else 0
    assert done.returncode == allowed and len(told) == len(made), (done.returncode, done.stderr, options[:300])
    for call, one in zip(made, told, strict=True):
        local = f"{one['local_ip']}:{one['local_port']}"
        write(log, call, one["http_code"], directory / f"{call.number}.answer", local)


def wget(port: int, log: int, line: str, directory: Path) -> None:
    """A connection by wget."""
    made = list(calls(line))
    first = made[0]
    command = [
        "wget",
        "--no-config",
        "--no-proxy",
        "--no-verbose",
        "--tries=1",
        "--force-directories",
        "--no-host-directories",
    ]
    command += [f"--ca-certificate={BED}/ca.pem", f"--certificate={BED}/client.pem", f"--private-key={BED}/client.key"]
    command += [f"--directory-prefix={directory}", "--input-file=-"]
    if first.body or first.method != "GET":
        (directory / "body").write_bytes(first.body)
        command += [f"--method={first.method}", f"--body-file={directory}/body", "--header=Content-Type: text/plain"]
    if first.reading == "stalled":
        command.append("--limit-rate=8m")
    elif first.reading == "partial":
        command.append("--limit-rate=200k")
    elif made[-1].reading == "abandoned":
        command.append("--limit-rate=300k")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stderr is not None
    process.stdin.write("".join(f"https://127.0.0.1:{port}{call.path}\n" for call in made))
    process.stdin.close()
    if made[-1].reading == "abandoned":
        last = directory / made[-1].path[1:]
        while process.poll() is None and not (last.exists() and last.stat().st_size):
            time.sleep(0.01)
        process.kill()
    error = process.stderr.read()
    process.stderr.close()
    allowed = -9 if made[-1].reading == "abandoned" else 0
    assert process.wait() == allowed, (process.returncode, error, line[:300])
    for call in made:  # wget takes 200 and 201 for success, and tells neither
        write(log, call, 0, directory / call.path[1:], "")


def main() -> None:
    mode, port, log = sys.argv[1:]
    one = {"curl": curl, "wget": wget}[mode]
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def connection(line: str) -> None:
        directory = Path(tempfile.mkdtemp(dir=Path(log).parent))
        one(int(port), file, line, directory)
        shutil.rmtree(directory)

    in_threads(connection)


if __name__ == "__main__":
    main()
