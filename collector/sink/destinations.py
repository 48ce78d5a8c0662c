"""The destinations that there are: one line each. Nobody else spells their kinds."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from collector import files
from collector.config import Config
from collector.rotation import Rotation
from collector.router.batches import JSON_LINES
from collector.settings import QUEUE_BYTES, STOP_SINK_SECONDS, SinkSettings
from collector.sink.destination import Destination
from collector.sink.jsonlines import JsonLines
from collector.sink.kafka.destination import Kafka
from collector.sink.null import Null

# Asked in this order, whether an output is theirs: the last one takes every name for a file's.
DESTINATIONS: tuple[type[Destination], ...] = (
    Kafka,
    Null,
    JsonLines,
)

METAVAR = "|".join(one.metavar for one in reversed(DESTINATIONS))


@dataclass(frozen=True)
class Output:
    """Where the records of a run go: a destination, and what the user called it."""

    destination: type[Destination]
    name: str

    def describe(self, config: Config) -> str:
        """For the start line."""
        return self.destination.describe(self.name, config)

    def made_of(self, config: Config) -> dict[str, files.Signature]:
        """The files that `open` is going to read, as they are now."""
        return {path: files.signature(path) for path in self.destination.made_of(self.name, config)}

    def open(self, config: Config, *, shared: bool) -> int | None:
        """What is passed to the sink: a descriptor, or None. Raises ConfigError. ``shared``: see --shared-files."""
        return self.destination.open_output(self.name, config, shared=shared)

    def reopen(self, config: Config, *, shared: bool) -> Callable[[], int | None] | None:
        """What SIGHUP does, if it does anything."""
        return (lambda: self.open(config, shared=shared)) if self.destination.reopens(self.name, config) else None

    def rotation(self, config: Config, *, shared: bool) -> Rotation | None:
        """How it is rotated by its size, if it is."""
        return self.destination.rotation(self.name, config, shared=shared)

    def orphan_responses(self, config: Config) -> bool:
        """Are answers without a request recorded?"""
        return config.COLLECTOR_ORPHAN_RESPONSES and self.destination.takes_orphans

    def settings(
        self,
        config: Config,
        *,
        lossless: bool = False,
        ordered: bool = False,
        queue_bytes: int = QUEUE_BYTES,
        stop_seconds: float = STOP_SINK_SECONDS,
        recording_limit: int = 0,
    ) -> SinkSettings:
        """What the sink is told."""
        return SinkSettings(
            kind=self.destination.kind,
            options=self.destination.options(config),
            format=JSON_LINES if ordered else self.destination.batches(config).format,
            lossless=lossless,
            ordered=ordered,
            spool=os.path.abspath(config.COLLECTOR_SPOOL_DIR) if config.COLLECTOR_SPOOL_DIR and not lossless else "",
            spool_bytes=config.COLLECTOR_SPOOL_BYTES,
            queue_bytes=queue_bytes,
            stop_seconds=stop_seconds,
            recording_limit=recording_limit,
        )


def chosen(config: Config, option: str | None = None) -> Output:
    """The output that --output (``option``) or else COLLECTOR_OUTPUT names, or else the first whose settings are there.
    Raises ConfigError.
    """
    configured = config.COLLECTOR_OUTPUT
    name = option or configured or next(default for one in DESTINATIONS if (default := one.default(config)))
    destination = next(one for one in DESTINATIONS if one.claims(name))
    destination.check(name, config, f"--output {name}" if option else f"COLLECTOR_OUTPUT={name!r}")
    if config.COLLECTOR_ORPHAN_RESPONSES and not destination.takes_orphans:
        config.warnings.append(
            f"COLLECTOR_ORPHAN_RESPONSES does not act: no answer without a request is sent to {destination.kind}"
        )
    return Output(destination, name)


def by_kind(kind: str) -> type[Destination]:
    """The destination of a kind. Raises ValueError."""
    for one in DESTINATIONS:
        if one.kind == kind:
            return one
    raise ValueError(f"there is no {kind!r} destination")
