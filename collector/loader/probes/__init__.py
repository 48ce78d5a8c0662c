"""The probe sources. A new one is a file in this package and a line in SOURCES (docs/adding-a-probe-source.md)."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from collector.loader.probes.gnutls import GnuTLS
from collector.loader.probes.go import Go
from collector.loader.probes.newcomers import Newcomers
from collector.loader.probes.nss import NSS
from collector.loader.probes.openssl import OpenSSL
from collector.loader.probes.owners import Owners
from collector.loader.probes.probe import Source
from collector.loader.probes.syscalls import Syscalls

SOURCES: tuple[Source, ...] = (Syscalls(), Newcomers(), Owners(), OpenSSL(), GnuTLS(), NSS(), Go())


def sources(modules: Iterable[str] = ()) -> tuple[Source, ...]:
    """SOURCES, and those of further modules, each of which has a SOURCE. Raises ImportError, and ValueError when two have
    the same name.

    The names of such modules come in the loader's start message (``sources``), which is set by code alone: by no setting
    and by no variable of the environment, for the loader is privileged.
    """
    found = (*SOURCES, *(importlib.import_module(module).SOURCE for module in modules))
    if len({source.name for source in found}) != len(found):
        raise ValueError("two probe sources have the same name: " + ", ".join(source.name for source in found))
    return found
