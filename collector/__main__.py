"""The command line: read settings, hand over to the supervisor."""

from __future__ import annotations

import argparse
import logging
import os
import stat
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from collector import (
    __version__,
    cgroups,
    config,
    config_kubernetes,
    config_pages,
    cores,
    descriptor_sets,
    errors,
    files,
    logs,
    memory_plan,
)
from collector.errors import CollectorError, ConfigError
from collector.policy import describing
from collector.policy.source import InForce, Source
from collector.settings import KubernetesSettings, LoaderSettings, ReplaySettings, ShardSettings, SupervisorSettings
from collector.sink import destinations
from collector.supervisor.starting import Plan

if TYPE_CHECKING:
    from collector.supervisor.supervisor import Supervisor

EPILOG = """\
exit codes:
  0   ended as asked (signal, --duration, end of the files)
  1   something was not delivered or not recorded, or the output went away; `status`: not ready (with --live: not live);
      `report`: not written
  2   the command line is wrong
  3   AKTO_MEM_THRESH_RESTART exceeded; drained, safe to restart; `status`, `tail`, `top`: no collector answers
  65  a recorded file is damaged (what was readable was processed)
  69  capture is not possible on this host (see `collector check`)
  70  a child process could not be started or kept running
  75  another collector captures on this node
  78  a variable or option has a bad value

signals (`run`, `replay`):
  TERM, INT  drain, deliver, end; a second one ends at once, with 128 + its number
  HUP        reopen the output file (after it was renamed), read certificates for Kafka and the policy again; ends nothing
  USR1       log a line of statistics; ends nothing

Settings are environment variables: `collector config` lists those that act, `--all` every one that is accepted.
"""

RUN_HELP = """\
Capture the HTTP traffic of this host and deliver one JSON record per exchange.

examples:
  collector run                                   JSON lines on standard output
  collector run --port 8080 --duration 60         one minute, connections with local or remote port 8080
  collector run --output records.jsonl            append to a file (made with mode 0600)
  AKTO_KAFKA_BROKER_MAL=kafka:9092 collector run  to the topic akto.api.logs
  collector run --record traffic.cap              also keep the raw events, for `collector replay`
  COLLECTOR_POLICY=secrets collector run --record traffic.cap --redact
                                                  keep the exchanges as they are delivered, without the raw events
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

REPORT_HELP = """\
Write one archive (tar.gz, mode 0600) for a bug report: versions, `check`, settings with secrets masked, metrics and status,
the last lines of the log, stacks and resources of the collector's processes, how full the kernel's maps are. It holds no
payload and no header; addresses and names of hosts are masked. Works with a collector that runs, one that is stuck, or none;
what could not be had is said in it. As the user of the collector (root) it has most. Exit codes: 0 written, 1 not written.
"""

TAIL_HELP = """\
Show the records of the collector of this node as they pass, beside their delivery: as they are delivered, redacted and
filtered. What this reader is too slow for is not shown, and counted; no record is lost. Ends with Ctrl-C.

examples:
  collector tail --status 5xx,404 --path '/api/*'
  collector tail --process nginx --bodies
  collector tail --host 'shop.*' --json | jq -r .path
"""

TOP_HELP = """\
Show requests a second, errors, latency and bytes by endpoint, host or process, and how the collector itself is.

keys: q quits, g groups by the next thing, s sorts by it, / filters (Enter), space stops the screen and lets it go on

err% are answers of 5xx and requests without an answer, B/s the bodies of both directions. In paths what has the form of an
identifier is {id}.
"""

SHARED_HELP = (
    "take FILE as it is: a link, another user's file, one that others can read or that has further names "
    "(otherwise refused, and its mode becomes 0600)"
)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="collector",
        formatter_class=formatter,
        epilog=EPILOG,
        description="Sees the HTTP APIs of this Linux node with eBPF and delivers one JSON record per exchange.",
    )
    top.add_argument("--version", action="version", version=f"collector {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="capture this host", description=RUN_HELP, formatter_class=formatter)
    run.add_argument("--output", metavar=destinations.METAVAR, help="where records go (default: COLLECTOR_OUTPUT)")
    run.add_argument("--record", metavar="FILE", help="also write the raw events to FILE (mode 0600, at most 1 GiB)")
    run.add_argument(
        "--redact",
        action="store_true",
        help="with --record: write the exchanges of the records, redacted as these are, instead of the raw events; "
        "needs a policy that redacts (COLLECTOR_POLICY)",
    )
    run.add_argument(
        "--pid", type=_positive, action="append", default=[], metavar="P", help="only this process (repeatable)"
    )
    run.add_argument(
        "--port",
        type=_port,
        action="append",
        default=[],
        metavar="P",
        help="only connections with this local or remote port (repeatable)",
    )
    run.add_argument("--shared-files", action="store_true", help=SHARED_HELP)
    run.add_argument("--duration", type=_seconds, metavar="S", help="stop after S seconds of capture")

    replay = commands.add_parser(
        "replay", help="process recorded traffic", description=REPLAY_HELP, formatter_class=formatter
    )
    replay.add_argument("files", nargs="+", metavar="FILE")
    replay.add_argument("--output", metavar=destinations.METAVAR, help="where records go (default: COLLECTOR_OUTPUT)")
    replay.add_argument("--shared-files", action="store_true", help=SHARED_HELP)
    replay.add_argument("--shards", type=_positive, metavar="N", help="number of shards (default: COLLECTOR_SHARDS)")

    status = commands.add_parser(
        "status", help="ask the collector of this node how it is", description=STATUS_HELP, formatter_class=formatter
    )
    what = status.add_mutually_exclusive_group()
    what.add_argument("--ready", action="store_true", help="exit 0 when it captures (this is the default)")
    what.add_argument("--live", action="store_true", help="exit 0 unless it cannot repair itself")
    status.add_argument("--json", action="store_true", help="print everything as one JSON object")

    report = commands.add_parser(
        "report", help="one archive for a bug report", description=REPORT_HELP, formatter_class=formatter
    )
    report.add_argument("--output", metavar="FILE", default="", help="(default: collector-report-TIME.tar.gz, here)")
    report.add_argument("--with-addresses", action="store_true", help="do not mask IP addresses and names of hosts")

    _viewers(commands, formatter)
    check = commands.add_parser(
        "check",
        help="check whether capture is possible on this host",
        description="Print what capture needs, what was found, and what to do. Exit code 69 when capture is impossible.",
    )
    check.add_argument(
        "--tls",
        action="store_true",
        help="instead: every process that uses TLS, whether its plaintext can be captured, at what cost, or why not",
    )
    check.add_argument("--json", action="store_true", help="print it as one JSON object")
    shown = commands.add_parser(
        "config",
        help="print the settings in force",
        description="Print the variables that act, with type, unit, default, effective value and its source.",
    )
    what = shown.add_mutually_exclusive_group()
    what.add_argument("--all", action="store_true", help="also those that are only accepted, with what becomes of them")
    what.add_argument(
        "--policy",
        action="store_true",
        help="instead: the policy (COLLECTOR_POLICY), with all rules of what is recorded, in their order",
    )
    return top


def _viewers(commands: argparse._SubParsersAction[argparse.ArgumentParser], formatter: type[argparse.HelpFormatter]) -> None:
    """The commands that look at what passes."""
    tail = commands.add_parser("tail", help="show records as they pass", description=TAIL_HELP, formatter_class=formatter)
    tail.add_argument("--host", metavar="GLOB", default="", help="only requests for this host: `*` and `?` stand for others")
    tail.add_argument("--path", metavar="GLOB", default="", help="only these paths, with or without their query")
    tail.add_argument("--status", metavar="LIST", default="", help="only these codes and classes: 5xx,404; 0: no answer")
    tail.add_argument("--process", metavar="NAME", default="", help="only this process: a name (GLOB), or its id")
    tail.add_argument("--direction", choices=("inbound", "outbound"), help="only what is served here, or called from here")
    how = tail.add_mutually_exclusive_group()
    how.add_argument("--bodies", action="store_true", help="show the payloads below each line")
    how.add_argument("--json", action="store_true", help="whole records as they are delivered, as JSON lines")
    tail.add_argument("--count", type=_positive, metavar="N", help="end after N records")
    top = commands.add_parser(
        "top", help="show requests, errors and latency, live", description=TOP_HELP, formatter_class=formatter
    )
    top.add_argument("--by", choices=("endpoint", "host", "process", "all"), default="endpoint", help="group rows by this")
    top.add_argument("--sort", choices=("requests", "errors", "p99", "bytes"), default="requests", help="what stands first")
    top.add_argument("--filter", metavar="TEXT", default="", help="only rows that hold this text")
    top.add_argument(
        "-d", "--delay", type=_seconds, default=2.0, metavar="S", help="seconds from one screen to the next (2)"
    )
    top.add_argument("-b", "--batch", action="store_true", help="plain text with all rows, for scripts and files")
    top.add_argument("-n", "--screens", type=_positive, metavar="N", help="end after N screens")
    top.add_argument("--once", action="store_true", help="the same as --batch -n 1")


def _look(settings: config.Config, options: argparse.Namespace) -> int:
    """`collector tail` and `collector top`."""
    from collector import viewing

    directory = settings.COLLECTOR_RUNTIME_DIR
    if options.command == "top":
        from collector.eyes import screen, top

        choice = screen.Choice(group=options.by, sort=options.sort, wanted=options.filter)
        screens = 1 if options.once else options.screens
        return top.main(
            directory, seconds=options.delay, screens=screens, batch=options.batch or options.once, choice=choice
        )
    from collector.eyes import tail

    request = viewing.Request(
        whole=options.json or options.bodies,
        host=options.host,
        path=options.path,
        process=options.process,
        status=tuple(one.strip() for one in options.status.lower().split(",")) if options.status else (),
        direction=viewing.DIRECTIONS.get(options.direction, 0),
    )
    try:
        request.check()
    except errors.ProtocolError as error:
        raise ConfigError(f"--{error}") from None
    return tail.main(directory, request, as_json=options.json, with_bodies=options.bodies, most=options.count)


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
    """Returns the exit code. ``loader``: changes of LoaderSettings for `run` that only code can make: further probe sources
    (collector.loader.probes.sources).
    """
    closed = logs.keep_standard_descriptors()
    commands = parser()
    options = commands.parse_args(arguments)
    if options.command == "run" and options.redact and not options.record:
        commands.error("argument --redact: needs --record FILE; records are redacted by COLLECTOR_POLICY")
    try:
        if options.command == "report":
            from collector.report import command

            return command.write(options.output, with_addresses=options.with_addresses)
        settings = config.load()
        if options.command == "config":
            if options.policy:
                sys.stdout.write(describing.table(settings, Source.of(settings)))
                return errors.EXIT_OK
            destinations.chosen(settings)
            sets = descriptor_sets.read(settings.COLLECTOR_GRPC_DESCRIPTORS)
            sys.stdout.write(config_pages.table(settings, everything=options.all))
            if sets:
                logs.say(f"collector: descriptor sets: {descriptor_sets.summary(sets)}")
            for warning in settings.warnings:
                logs.say(f"collector: warning: {warning}")
            return errors.EXIT_OK
        if options.command == "check":
            if options.tls:
                from collector.loader.tls import check
                from collector.supervisor import identity

                return check.main(next(iter(identity.choose(1).ids), None), as_json=options.json)
            from collector.loader import preflight

            return preflight.main(as_json=options.json)
        if options.command == "status":
            from collector import status

            return status.main(settings.COLLECTOR_RUNTIME_DIR, live=options.live, as_json=options.json)
        if options.command in ("tail", "top"):
            return _look(settings, options)
        from collector.supervisor.supervisor import hold_signals

        output = destinations.chosen(settings, options.output)
        if 1 in closed and output.name == "-":
            raise ConfigError("--output -: standard output is closed")
        hold_signals()
        cores.forbid()  # we hold keys, and what we start holds records
        logs.set_up_supervisor(settings.AKTO_LOG_LEVEL, settings.COLLECTOR_LOG_FORMAT)
        for warning in settings.warnings:
            logging.getLogger("config").warning(warning)
        if options.command == "run":
            return run(settings, output, options, loader)
        return replay(settings, output, options)
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


def _summary(totals: dict[str, int], what: str) -> None:
    lost = totals["loader_kernel_dropped_events"]
    known = totals["sink_delivered_records"] + totals["sink_dropped_records"] + totals["sink_failed_records"]
    known += totals["sink_spooled_records"] - totals["sink_unspooled_records"]
    known += totals["supervisor_lost_records"] + totals["supervisor_records_made_again"]
    left = f", {totals['records'] - known} not delivered" if totals["records"] > known else ""
    if totals["supervisor_lost_records"]:
        left = f", {totals['supervisor_lost_records']} lost with a shard{left}"
    if totals["sink_spool_records"]:
        left = f", {totals['sink_spool_records']} in the spool{left}"
    logs.say(
        f"collector: {what}: {totals['records']} records ({totals['records_marked']} marked), "
        f"{totals['sink_delivered_records']} delivered, {totals['sink_dropped_records']} dropped, "
        f"{totals['sink_failed_records']} failed{left}; {totals['events']} events, {lost} lost, {totals['holes']} holes"
    )


def _finish(supervisor: Supervisor, settings: config.Config, what: str) -> int:
    """Run it, and say how it ended; the exit code."""
    code = supervisor.run()
    for problem in supervisor.problems:
        logs.say(f"collector: {problem}")
    if settings.AKTO_LOG_LEVEL != "OFF":
        _summary(supervisor.totals(), what)
    return code


def replay(settings: config.Config, output: destinations.Output, options: argparse.Namespace) -> int:
    """`collector replay`."""
    from collector.supervisor.supervisor import Supervisor

    if options.shards:
        if not 1 <= options.shards <= 64:
            raise ConfigError(f"--shards {options.shards}: 1 to 64")
        settings.override(config.Config.COLLECTOR_SHARDS, options.shards, "--shards")
    for path in options.files:
        if not os.path.isfile(path):
            raise ConfigError(f"{path}: no such file")
    if sum(len(os.fsencode(os.path.abspath(path))) + 8 for path in options.files) > MOST_NAMES_BYTES:
        raise ConfigError(f"{len(options.files)} files in one replay: their names are longer than {MOST_NAMES_BYTES} bytes")
    sets = _descriptor_sets(settings)
    policy = Source.of(settings)
    made_of = output.made_of(settings)
    fd = output.open(settings, shared=options.shared_files)
    if fd is not None and any(os.path.samestat(os.fstat(fd), os.stat(path)) for path in options.files):
        raise ConfigError(f"--output {options.output!r}: is one of the recordings")
    return _finish(
        Supervisor(
            Plan(
                supervisor=SupervisorSettings.of(settings, live=False, ends_by_itself=True),
                shard=ShardSettings.of(
                    settings,
                    shards=settings.shards,
                    want_details=output.destination.wants_details,
                    orphan_responses=output.orphan_responses(settings),
                    record_prefix="replay-",
                    daemonset_id=str(uuid.UUID(int=0)),
                ),
                loader=ReplaySettings(files=tuple(os.path.abspath(path) for path in options.files)),
                sink=output.settings(settings, lossless=True, ordered=True, stop_seconds=3600.0),
                output_fd=fd,
                descriptors_fd=descriptor_sets.share(sets),
                policy=policy,
                reopen=output.reopen(settings, shared=options.shared_files),
                made_of=made_of,
                directory=tempfile.mkdtemp(prefix="collector-"),
                directory_exists=True,
            )
        ),
        settings,
        "replayed",
    )


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


def _check_spool(settings: config.Config) -> None:
    """Raises ConfigError for a directory that cannot be used, LockedError when another collector does."""
    if settings.COLLECTOR_SPOOL_DIR:
        from collector.sink import spool_directory

        try:
            os.close(spool_directory.prepare(os.path.abspath(settings.COLLECTOR_SPOOL_DIR)))
        except OSError as error:
            raise ConfigError(f"COLLECTOR_SPOOL_DIR={settings.COLLECTOR_SPOOL_DIR!r}: {error.strerror or error}") from None


def _descriptor_sets(settings: config.Config) -> list[descriptor_sets.DescriptorSet]:
    """Those that are set, said in the log. Raises ConfigError."""
    sets = descriptor_sets.read(settings.COLLECTOR_GRPC_DESCRIPTORS)
    if sets:
        logging.getLogger("config").info("descriptor sets: %s", descriptor_sets.summary(sets))
    return sets


def run(
    settings: config.Config,
    output: destinations.Output,
    options: argparse.Namespace,
    loader: Mapping[str, Any] | None = None,
) -> int:
    """`collector run`. ``loader``: as in `main`."""
    from collector import capturefile
    from collector.loader import preflight
    from collector.supervisor.lock import NodeLock, within
    from collector.supervisor.supervisor import Supervisor

    pids = tuple(_process(pid) for pid in options.pid)
    sets = _descriptor_sets(settings)
    policy = Source.of(settings, redacts_for="--redact" if options.redact else "")
    plan = memory_plan.of(settings, limit=cgroups.memory_limit(), descriptors=descriptor_sets.size(sets))
    settings.override(config.Config.COLLECTOR_SHARDS, plan.shards, "memory plan")
    settings.override(config.Config.COLLECTOR_RING_BYTES, plan.ring_bytes, "memory plan")
    logging.getLogger("memory").log(logging.WARNING if plan.smaller else logging.INFO, "%s", plan)
    if plan.hard < plan.at_rest:
        logging.getLogger("memory").warning(
            "the processes take %d MiB before there is any traffic, and %d MiB end the collector (code 3): it will not run "
            "for long; raise AKTO_MEM_THRESH_RESTART, and the memory limit of the container if it has one",
            plan.at_rest >> 20,
            plan.hard >> 20,
        )
    _check_spool(settings)
    preflight.require()
    if preflight.own_pid_namespace() is not None:
        if settings.PROBE_PROCESS_NAMES:  # a probe for one process takes our numbers, and /proc may have the node's
            raise ConfigError("PROBE_PROCESS_NAMES: needs the node's process ids (hostPID: true, docker run --pid=host)")
        logging.getLogger("preflight").warning("this is %s", preflight.NESTED)
    with NodeLock(settings.COLLECTOR_RUNTIME_DIR) as lock:
        made_of = output.made_of(settings)
        fd = output.open(settings, shared=options.shared_files)
        recording = _recording(options, fd)
        limit = capturefile.DEFAULT_LIMIT_BYTES
        return _finish(
            Supervisor(
                Plan(
                    supervisor=SupervisorSettings.of(
                        settings,
                        soft_bytes=plan.soft,
                        hard_bytes=plan.hard,
                        queue_bytes=plan.queue_bytes,
                        compiler_first=plan.compiler_first,
                        duration_seconds=options.duration,
                        announcement=_announcement(settings, output, options.port, pids, policy.first),
                    ),
                    shard=ShardSettings.of(
                        settings,
                        shards=settings.shards,
                        want_details=output.destination.wants_details,
                        orphan_responses=output.orphan_responses(settings),
                        only_ports=tuple(options.port),
                        record_prefix=capturefile.boot_id() + "-",
                        daemonset_id=str(uuid.uuid4()),
                        batches=output.destination.batches(settings),
                    ),
                    loader=replace(
                        LoaderSettings.of(
                            settings,
                            rings=plan.rings,
                            connections=plan.connections,
                            pids=pids,
                            record_limit=limit if recording is not None and not options.redact else 0,
                        ),
                        **(loader or {}),
                    ),
                    sink=output.settings(
                        settings, queue_bytes=plan.queue_bytes, recording_limit=limit if options.redact else 0
                    ),
                    loader_fds=[] if recording is None or options.redact else [recording],
                    output_fd=fd,
                    recording_fd=recording if options.redact else None,
                    descriptors_fd=descriptor_sets.share(sets),
                    policy=policy,
                    reopen=output.reopen(settings, shared=options.shared_files),
                    made_of=made_of,
                    rotation=output.rotation(settings, shared=options.shared_files),
                    directory=within(lock.fd, f"run-{os.getpid()}"),
                    health_directory=lock.fd,
                    view_directory=lock.fd,
                    kubernetes=KubernetesSettings.of(settings),
                )
            ),
            settings,
            "stopped",
        )


def _recording(options: argparse.Namespace, output_fd: int | None) -> int | None:
    """The file of --record, if there is one. Raises ConfigError."""
    if not options.record:
        return None
    fd = files.open_for_records(options.record, os.O_RDWR | os.O_TRUNC, "--record", shared=options.shared_files)
    if stat.S_ISFIFO(os.fstat(fd).st_mode):  # one that is not read would hold capture up
        raise ConfigError(f"--record {options.record!r}: is a pipe; a file is needed")
    if (
        output_fd is not None
        and stat.S_ISREG(os.fstat(output_fd).st_mode)
        and os.path.samestat(os.fstat(output_fd), os.fstat(fd))
    ):
        raise ConfigError(f"--record {options.record!r}: is the output")
    return fd


def _announcement(
    settings: config.Config, output: destinations.Output, ports: Sequence[int], pids: Sequence[int], policy: InForce
) -> str:
    """The one line of every start: what is captured, where it goes, what is in it."""
    what = f"HTTP of {config_kubernetes.captured(settings)}"
    if pids:
        what = "HTTP of process " + ", ".join(map(str, pids))
    if ports:
        what += " on port " + ", ".join(map(str, ports))
    text = (
        f"collector {__version__}: capturing {what} -> {output.describe(settings)}; records hold headers and bodies; "
        f"policy {describing.words(policy)}; {_rules(settings.AKTO_MODULE_DISCOVERY_CONFIG)}"
    )
    return text.replace("{", "{{").replace("}", "}}") + " [{attached}]"


def _rules(text: str) -> str:
    """The header filter in words: what it hides must not surprise anybody."""
    from collector.shards.filters.rules import AKTO_DEFAULT, parse_rules

    if text.strip() == AKTO_DEFAULT:
        return "header filter: Akto's default (a request with x-envoy-peer-metadata-id is left out unless it says sidecar)"
    return "header filter as configured" if parse_rules(text) else "no header filter"


if __name__ == "__main__":
    raise SystemExit(main())
