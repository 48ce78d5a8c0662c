"""The command line: read settings, hand over to the supervisor."""

from __future__ import annotations

import argparse
import logging
import os
import re
import stat
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from collector import __version__, config, errors, files, logs
from collector.errors import CollectorError, ConfigError

EPILOG = """\
exit codes:
  0   ended as asked (signal, --duration, end of the files)
  1   something was not delivered or not recorded, or the output went away; `status`: not ready (with --live: not live)
  2   the command line is wrong
  3   AKTO_MEM_THRESH_RESTART was passed: drained, please start again; `status`: no collector answers
  65  a recorded file is damaged (what was readable was processed)
  69  this host cannot be captured (see `collector check`)
  70  a child process could not be started or kept alive
  75  another collector captures on this node
  78  a variable or option has a bad value

signals (`run`, `replay`):
  TERM, INT  drain, deliver, end; a second one ends at once, with 128 + its number
  HUP        open the output file again (after it was renamed); ends nothing
  USR1       log a line of statistics; ends nothing

Settings are environment variables: `collector config` lists them.
"""

RUN_HELP = """\
Capture the HTTP traffic of this host and deliver one JSON record per exchange.

examples:
  collector run                                   JSON lines on standard output
  collector run --port 8080 --duration 60         one minute, connections with local or remote port 8080
  collector run --output records.jsonl            append to a file (made with mode 0600)
  AKTO_KAFKA_BROKER_MAL=kafka:9092 collector run  to the topic akto.api.logs
  collector run --record traffic.cap              also keep the raw events, for `collector replay`
"""

REPLAY_HELP = """\
Feed recorded traffic through the same router, shards and sink; needs no privilege.

FILE is a capture of `collector run --record`, or a .streams.jsonl of two-sided streams. Files share nothing: each gives
the records that it gives alone, one file after the other. Those of a file come out ordered by (end time, connection,
stream position) and are the same every time, whatever the number of shards. Temporary files are made in TMPDIR, or in /tmp
where the sink's user cannot write that.
"""

STATUS_HELP = """\
Ask the collector that runs on this node, over a Unix socket below COLLECTOR_RUNTIME_DIR that only its user (root) can
reach. Works whoever has the health port. Exit codes: 0 ready, 1 not ready, 3 no collector answers.
"""

SHARED_HELP = ("take FILE as it is: a link, another user's file, one that others can read or that has further names "
               "(otherwise refused, and its mode becomes 0600)")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="collector", formatter_class=formatter, epilog=EPILOG,
        description="Sees the HTTP APIs of this Linux node with eBPF and delivers one JSON record per exchange.")
    top.add_argument("--version", action="version", version=f"collector {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="capture this host", description=RUN_HELP, formatter_class=formatter)
    run.add_argument("--output", metavar="-|FILE|kafka|null", help="where records go (default: COLLECTOR_OUTPUT)")
    run.add_argument("--record", metavar="FILE", help="also write the raw events to FILE (mode 0600, at most 1 GiB)")
    run.add_argument("--pid", type=_positive, action="append", default=[], metavar="P",
                     help="only this process (repeatable)")
    run.add_argument("--port", type=_port, action="append", default=[], metavar="P",
                     help="only connections with this local or remote port (repeatable)")
    run.add_argument("--shared-files", action="store_true", help=SHARED_HELP)
    run.add_argument("--duration", type=_seconds, metavar="S", help="stop after S seconds of capture")

    replay = commands.add_parser("replay", help="process recorded traffic", description=REPLAY_HELP,
                                 formatter_class=formatter)
    replay.add_argument("files", nargs="+", metavar="FILE")
    replay.add_argument("--output", metavar="-|FILE|kafka|null", help="where records go (default: COLLECTOR_OUTPUT)")
    replay.add_argument("--shared-files", action="store_true", help=SHARED_HELP)
    replay.add_argument("--shards", type=_positive, metavar="N", help="number of shards (default: COLLECTOR_SHARDS)")

    status = commands.add_parser("status", help="ask the collector of this node how it is", description=STATUS_HELP,
                                 formatter_class=formatter)
    what = status.add_mutually_exclusive_group()
    what.add_argument("--ready", action="store_true", help="exit 0 when it captures (this is the default)")
    what.add_argument("--live", action="store_true", help="exit 0 unless it cannot repair itself")
    status.add_argument("--json", action="store_true", help="print everything as one JSON object")

    commands.add_parser("check", help="can this host be captured?",
                        description="Print what capture needs, what was found, and what to do. Exit code 69 when "
                        "capture is impossible.")
    commands.add_parser("config", help="print all settings",
                        description="Print every variable with type, unit, default, effective value, its source, and "
                        "whether it acts.")
    return top


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 < value < 65536:
        raise argparse.ArgumentTypeError("must be from 1 to 65535")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value

MOST_NAMES_BYTES = 100_000  # they go to the loader in one message


def main(arguments: Sequence[str] | None = None, loader: Mapping[str, Any] | None = None) -> int:
    """Returns the exit code. ``loader``: fields of the loader's start message for `run`, which only code can set: further
    probe sources (collector.loader.probes.sources).
    """
    closed = logs.keep_standard_descriptors()
    options = parser().parse_args(arguments)
    try:
        settings = config.load()
        if options.command == "config":
            sys.stdout.write(config.table(settings))
            for warning in settings.warnings:
                logs.say(f"collector: warning: {warning}")
            return errors.EXIT_OK
        if options.command == "check":
            from collector.loader import preflight

            return preflight.main()
        if options.command == "status":
            from collector import status

            return status.main(settings["COLLECTOR_RUNTIME_DIR"], live=options.live, as_json=options.json)
        from collector.supervisor.supervisor import hold_signals

        if 1 in closed and (options.output or settings.output) == "-":
            raise ConfigError("--output -: standard output is closed")
        hold_signals()
        logs.set_up_supervisor(settings["AKTO_LOG_LEVEL"], settings["COLLECTOR_LOG_FORMAT"])
        for warning in settings.warnings:
            logging.getLogger("config").warning(warning)
        return run(settings, options, loader) if options.command == "run" else replay(settings, options)
    except CollectorError as error:
        logs.say(f"collector: {error}")
        return error.exit_code
    except OSError as error:
        if options.command not in ("run", "replay"):
            return errors.EXIT_FAILURE  # `collector config | head`
        logs.say(f"collector: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        return errors.EXIT_CHILD
    finally:
        logs.shut_down()


def _output(settings: config.Config, option: str | None, shared: bool) -> tuple[str, int | None]:
    """(kind, descriptor): kind is kafka, null, - or file."""
    output = option or settings.output
    if output == "kafka":
        if not settings.brokers:
            raise ConfigError("--output kafka: needs AKTO_KAFKA_BROKER_MAL=HOST:PORT")
        return "kafka", None
    if output == "null":
        return "null", None
    scheme = re.match(r"[a-z][a-z0-9+.-]*://", output, re.IGNORECASE)
    if scheme:
        raise ConfigError(f"output {output!r}: is no file" + (
            "; brokers are named by AKTO_KAFKA_BROKER_MAL=HOST:PORT[,HOST:PORT...], the topic by COLLECTOR_KAFKA_TOPIC, and "
            "the output is then `kafka`" if scheme[0].lower().startswith("kafka") else "; a file of that name: "
            f"./{output}"))
    kind = "-" if output in ("-", "/dev/stdout") else "file"
    return kind, files.open_for_records(output, os.O_RDWR | os.O_APPEND, "output", shared=shared)


def _summary(totals: dict[str, int], what: str) -> None:
    lost = totals["loader_kernel_dropped_events"]
    known = totals["sink_delivered_records"] + totals["sink_dropped_records"] + totals["sink_failed_records"]
    left = f", {totals['records'] - known} not delivered" if totals["records"] > known else ""
    logs.say(
        f"collector: {what}: {totals['records']} records ({totals['records_marked']} marked), "
        f"{totals['sink_delivered_records']} delivered, {totals['sink_dropped_records']} dropped, "
        f"{totals['sink_failed_records']} failed{left}; {totals['events']} events, {lost} lost, {totals['holes']} holes")


def replay(settings: config.Config, options: argparse.Namespace) -> int:
    """`collector replay`."""
    from collector.supervisor.supervisor import Plan, Supervisor

    if options.shards:
        if not 1 <= options.shards <= 64:
            raise ConfigError(f"--shards {options.shards}: 1 to 64")
        settings.values["COLLECTOR_SHARDS"] = config.Value(
            settings.values["COLLECTOR_SHARDS"].setting, options.shards, "--shards")
    for path in options.files:
        if not os.path.isfile(path):
            raise ConfigError(f"{path}: no such file")
    if sum(len(os.fsencode(os.path.abspath(path))) + 8 for path in options.files) > MOST_NAMES_BYTES:
        raise ConfigError(f"{len(options.files)} files in one replay: their names are longer than {MOST_NAMES_BYTES} bytes")
    kind, fd = _output(settings, options.output, options.shared_files)
    if fd is not None and any(os.path.samestat(os.fstat(fd), os.stat(path)) for path in options.files):
        raise ConfigError(f"--output {options.output!r}: is one of the recordings")
    supervisor = Supervisor(Plan(
        settings, kind, "collector.loader.replay",
        {"files": [os.path.abspath(path) for path in options.files]}, output_fd=fd, live=False, lossless=True,
        ordered=True, ends_by_itself=True,
        reopen=(lambda: _output(settings, options.output, options.shared_files)[1]) if kind == "file" else None,
        directory=tempfile.mkdtemp(prefix="collector-"), directory_exists=True,
        record_prefix="replay-", daemonset_id="00000000-0000-0000-0000-000000000000",
        stop_sink_seconds=3600.0))
    code = supervisor.run()
    for problem in supervisor.problems:
        logs.say(f"collector: {problem}")
    if settings["AKTO_LOG_LEVEL"] != "OFF":
        _summary(supervisor.totals(), "replayed")
    return code


def _process(number: int) -> int:
    """The process that --pid means; a thread's number means its process. Raises ConfigError."""
    with open("/proc/sys/kernel/pid_max", encoding="ascii") as file:
        most = int(file.read())
    if number >= most:
        raise ConfigError(f"--pid {number}: above the kernel's largest process id ({most - 1})")
    try:
        with open(f"/proc/{number}/status", encoding="utf-8", errors="replace") as file:
            tgid = next(int(line.split()[1]) for line in file if line.startswith("Tgid:"))
    except (OSError, StopIteration):
        raise ConfigError(f"--pid {number}: no such process") from None
    if tgid != number:
        logging.getLogger("config").warning("--pid %d is a thread of process %d: capturing that process", number, tgid)
    return tgid


def run(settings: config.Config, options: argparse.Namespace, loader: Mapping[str, Any] | None = None) -> int:
    """`collector run`. ``loader``: as in `main`."""
    from collector.loader import capturefile, preflight
    from collector.router import partition
    from collector.supervisor.lock import NodeLock, within
    from collector.supervisor.supervisor import Plan, Supervisor, ring_size

    pids = [_process(pid) for pid in options.pid]
    preflight.require()
    if preflight.own_pid_namespace() is not None:
        logging.getLogger("preflight").warning("this is %s", preflight.NESTED)
    with NodeLock(settings["COLLECTOR_RUNTIME_DIR"]) as lock:
        kind, fd = _output(settings, options.output, options.shared_files)
        rings = partition.ring_count(settings.shards, os.cpu_count() or 1)
        message = {
            "rings": rings, "ring_bytes": ring_size(settings["COLLECTOR_RING_BYTES"]),
            "variants": [] if settings["COLLECTOR_HOOKS"] == "auto" else [settings["COLLECTOR_HOOKS"]],
            "identity": settings["COLLECTOR_IDENTITY"], "body_bytes": settings["COLLECTOR_BODY_BYTES"],
            "header_bytes": settings["COLLECTOR_HEADER_BYTES"], "pids": pids,
            "ports": options.port, "unix": settings["COLLECTOR_UNIX_SOCKETS"], "record": bool(options.record),
            "record_limit": capturefile.DEFAULT_LIMIT_BYTES,
            "announce": _announcement(settings, options, kind, pids), **(loader or {}),
        }
        fds = []
        if options.record:
            fds.append(files.open_for_records(options.record, os.O_RDWR | os.O_TRUNC, "--record",
                                              shared=options.shared_files))
            if stat.S_ISFIFO(os.fstat(fds[0]).st_mode):  # one that is not read would hold capture up
                raise ConfigError(f"--record {options.record!r}: is a pipe; a file is needed")
            if fd is not None and stat.S_ISREG(os.fstat(fd).st_mode) and os.path.samestat(os.fstat(fd), os.fstat(fds[0])):
                raise ConfigError(f"--record {options.record!r}: is the output")
        supervisor = Supervisor(Plan(
            settings, kind, "collector.loader.process", message, fds, output_fd=fd,
            reopen=(lambda: _output(settings, options.output, options.shared_files)[1]) if kind == "file" else None,
            duration_seconds=options.duration,
            directory=within(lock.fd, f"run-{os.getpid()}"), health_directory=lock.fd,
            record_prefix=capturefile.boot_id() + "-", daemonset_id=str(uuid.uuid4())))
        code = supervisor.run()
        for problem in supervisor.problems:
            logs.say(f"collector: {problem}")
        if settings["AKTO_LOG_LEVEL"] != "OFF":
            _summary(supervisor.totals(), "stopped")
        return code


def _announcement(settings: config.Config, options: argparse.Namespace, kind: str, pids: list[int]) -> str:
    """The one line of every start: what is captured, where it goes, what is in it."""
    what = "HTTP/1 of all processes"
    if pids:
        what = "HTTP/1 of process " + ", ".join(map(str, pids))
    if options.port:
        what += " on port " + ", ".join(map(str, options.port))
    where = {"kafka": f"Kafka {settings.brokers} topic {settings['COLLECTOR_KAFKA_TOPIC']}", "null": "nowhere",
             "-": "standard output", "file": f"file {options.output or settings.output}"}[kind]
    text = (f"collector {__version__}: capturing {what} -> {where}; records hold headers and bodies, nothing is "
            f"redacted; {_rules(settings['AKTO_MODULE_DISCOVERY_CONFIG'])}")
    return text.replace("{", "{{").replace("}", "}}") + " [{attached}]"


def _rules(text: str) -> str:
    """The header filter in words: what it hides must not surprise anybody."""
    from collector.shards.filters.rules import AKTO_DEFAULT

    if text.strip() == AKTO_DEFAULT:
        return "header filter: Akto's default (a request with x-envoy-peer-metadata-id is left out unless it says sidecar)"
    return "header filter as configured" if text.strip() not in ("", "[]", "null") else "no header filter"


if __name__ == "__main__":
    raise SystemExit(main())
