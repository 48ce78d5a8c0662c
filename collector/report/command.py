"""`collector report`: what whoever looks into a fault needs, in one archive: no payload, no header, no address.

It asks the running collector as `collector status` does, reads /proc and the numbers of the kernel's maps, and runs
`collector check`. Each part has its time; one that fails says so in its place, and the others are made all the same. So it
works when no collector runs, when one is stuck, and without root, with less in it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping

from collector import __version__, config, config_pages, errors, files, status
from collector.errors import CollectorError, ConfigError
from collector.report import host, maps, processes
from collector.report.archive import Archive, Made, Part, make
from collector.report.masking import Mask
from collector.supervisor.lock import LOCK_FILE, open_own

_CHECK_SECONDS = 60.0
_STACKS_SECONDS = 1.0  # for all to write theirs; the supervisor reads them ten times a second

README = """\
A report of `collector report`, version {version}, made at {time}.

Left out: payloads, headers and secrets, always.
{addresses}
CONTENTS lists the files; what could not be had, and why, is said there and in the file.

log.txt       the last lines of the running collector's log, its level being AKTO_LOG_LEVEL; at their end
              the stacks of its processes in Python, as they were asked for
stacks.txt    the supervisor's own stack in Python, and who was asked
kernel-stacks.txt, processes.txt, cgroups.txt    from /proc and /sys
maps.txt      how full the kernel's maps and rings are
config.txt    the settings of the running collector if they can be read, or else of the shell
"""


class Report:
    """Knows where the collector is: ``directory`` as COLLECTOR_RUNTIME_DIR. ``supervisor`` is its process, None when none
    runs.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._silent: status.NoAnswerError | None = None
        self.environment: Mapping[str, str] = os.environ
        self.source = "this shell"
        self.supervisor = self._find()
        if self.supervisor is not None:
            with contextlib.suppress(OSError):
                self.environment = _environment(self.supervisor)
                self.source = "the running collector"
        self.processes = processes.tree(self.supervisor) if self.supervisor is not None else []

    def _find(self) -> int | None:
        """The process of the running collector, as its directory says, which is there when nothing answers, too: the one
        that a directory is named after and that holds the lock. A process that has the number of a dead one does not.
        """
        with contextlib.suppress(OSError):
            above = files.open_directory(os.path.abspath(self._directory))
            try:
                own = open_own(above)
            finally:
                os.close(above)
            try:
                names = {name.removeprefix("run-") for name in os.listdir(own) if name.startswith("run-")}
                lock = os.stat(LOCK_FILE, dir_fd=own, follow_symlinks=False).st_ino
            finally:
                os.close(own)
            return next((pid for pid in _holders(lock) if str(pid) in names), None)
        return None

    def parts(self) -> list[Part]:
        """In the order in which they are made: what can change comes first, the log, which then has all stacks, last."""
        return [
            Part("status.json", lambda: self._page("/status")),
            Part("stacks.txt", self._stacks),
            Part("kernel-stacks.txt", lambda: processes.kernel_stacks(self._running())),
            Part("processes.txt", lambda: processes.use(self._running())),
            Part("metrics.txt", lambda: self._page("/metrics")),
            Part("maps.txt", lambda: maps.table(self._running()[0].pid)),
            Part("cgroups.txt", lambda: host.limits(self.supervisor or os.getpid())),
            Part("kernel.txt", host.kernel),
            Part("versions.txt", host.versions, 20.0),
            Part("config.txt", self._config),
            Part("check.txt", _check, _CHECK_SECONDS + 1.0),
            Part("log.txt", lambda: self._page("/log")),
        ]

    def _page(self, path: str) -> str:
        """A page of the running collector, which is not waited for twice."""
        if self._silent is not None:
            raise self._silent
        try:
            return status.page(self._directory, path).decode("utf-8", "replace")
        except status.NoAnswerError as error:
            self._silent = error
            raise

    def _running(self) -> list[processes.Process]:
        if not self.processes:
            raise status.NoAnswerError(f"no collector runs with COLLECTOR_RUNTIME_DIR={self._directory}")
        return self.processes

    def _stacks(self) -> str:
        """Who was asked, and what the supervisor has written since: earlier reports asked, too."""
        running, before = self._running(), ""
        with contextlib.suppress(status.NoAnswerError):
            before = self._page("/stacks")
        asked = processes.ask_for_stacks(running)
        time.sleep(_STACKS_SECONDS)
        try:
            return f"{asked}\n{self._page('/stacks').removeprefix(before)}"
        except status.NoAnswerError as error:
            return f"{asked}\n{error}\n"

    def _config(self) -> str:
        try:
            settings = config.load(self.environment)
        except ConfigError as error:
            return f"of {self.source}: {error}\n"
        warnings = "".join(f"warning: {warning}\n" for warning in settings.warnings)
        return f"of {self.source}\n\n{config_pages.table(settings)}{warnings}"

    def hosts(self) -> Iterable[str]:
        """Names of hosts that the settings and this host are known by."""
        yield socket.gethostname()
        yield socket.gethostname().partition(".")[0]
        with contextlib.suppress(ConfigError):
            for value in config.load(self.environment).values.values():
                if "BROKER" in value.setting.name and isinstance(value.value, str):
                    for address in value.value.split(","):
                        yield address.strip().rpartition(":")[0].strip("[]")


def _holders(inode: int) -> list[int]:
    """Processes that hold flock(2) of a file with this number (proc_locks(5)); taking it to see would refuse a start."""
    found = []
    with open("/proc/locks", encoding="ascii") as file:
        for line in file:
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
                found.append(int(fields[4]))
    return found


def _environment(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/environ", "rb") as file:
        pairs = [entry.partition(b"=") for entry in file.read().split(b"\0") if b"=" in entry]
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def _check() -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "collector", "check"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=_CHECK_SECONDS,
    )
    return f"{done.stdout}\nexit code {done.returncode}\n"


def _runtime_directory() -> str:
    """As the settings say, also when others among them are wrong: that is to be reported."""
    try:
        return config.load().COLLECTOR_RUNTIME_DIR
    except ConfigError:
        return os.environ.get("COLLECTOR_RUNTIME_DIR") or config.load({}).COLLECTOR_RUNTIME_DIR


def write(path: str, *, with_addresses: bool) -> int:
    """Make the archive, list what it holds on standard output; the exit code. Raises ConfigError for a file that cannot be
    made.
    """
    now = time.gmtime()
    name = time.strftime("collector-report-%Y%m%dT%H%M%SZ", now)
    path = path or f"{name}.tar.gz"
    fd = files.open_for_records(path, os.O_WRONLY | os.O_TRUNC, "--output")
    report = Report(_runtime_directory())
    mask = str if with_addresses else Mask(report.hosts())
    print_ = sys.stdout.write
    try:
        with os.fdopen(fd, "wb") as file:
            archive = Archive(file, name)
            made: list[Made] = []
            rows: list[str] = []
            for part in report.parts():
                made.append(make(part, mask))
                size = archive.add(made[-1].name, made[-1].text)
                rows.append(f"{made[-1].name:<18} {size:>9} bytes  {made[-1].problem}".rstrip() + "\n")
                print_(rows[-1])
                sys.stdout.flush()
            archive.add("CONTENTS", "".join(rows))
            archive.add(
                "README",
                README.format(
                    version=__version__,
                    time=time.strftime("%Y-%m-%dT%H:%M:%SZ", now),
                    addresses="Addresses and names of hosts are in it: --with-addresses was given."
                    if with_addresses
                    else "Addresses and names of hosts are <address-N> and <host-N>, the same one always the same.",
                ),
            )
            archive.close()
    except OSError as error:
        raise CollectorError(f"--output {path!r}: {error.strerror or error}") from None
    if report.supervisor is None:
        print_("no collector runs here: there is nothing of a running one in it\n")
    if with_addresses:
        print_("it holds addresses and names of hosts: --with-addresses\n")
    print_(f"{path}\n")
    return errors.EXIT_OK
