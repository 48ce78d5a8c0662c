"""What one run of the collector is, and the start message of each of its children."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from collector.files import Signature
from collector.policy.source import Source
from collector.rotation import Rotation
from collector.settings import (
    Adoption,
    KubernetesSettings,
    LoaderSettings,
    LoaderStart,
    ReplaySettings,
    ReplayStart,
    Rings,
    ShardSettings,
    ShardStart,
    SinkSettings,
    SinkStart,
    SupervisorSettings,
)

SHARD, SINK = "collector.shards.process", "collector.sink.process"
FIRST_STAGE: dict[type, str] = {LoaderSettings: "collector.loader.process", ReplaySettings: "collector.loader.replay"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run. ``loader`` is what the first stage is told: the live loader, a replay in its place.

    ``loader_fds`` go to the first stage at each start, ``output_fd`` and ``recording_fd`` to the sink, ``descriptors_fd``
    (descriptor_sets.share) to the shards; they stay open during the run. ``policy`` is where that comes from, and what it is
    at the start.
    ``reopen`` opens the output again (raises CollectorError), where that is possible; ``made_of`` are files at whose change
    that is due, as they were before; ``rotation`` says when the file of records gets another name. ``directory`` holds the
    sockets between the processes. ``health_directory`` is a descriptor: where the status socket is made; None for no
    health pages. ``view_directory`` is one for the socket of viewers; None for no viewers. ``kubernetes``: what follows the
    API server; None for nothing.
    """

    supervisor: SupervisorSettings
    shard: ShardSettings
    loader: LoaderSettings | ReplaySettings
    sink: SinkSettings
    directory: str
    directory_exists: bool = False
    loader_fds: Sequence[int] = ()
    output_fd: int | None = None
    recording_fd: int | None = None
    descriptors_fd: int | None = None
    policy: Source = Source()  # noqa: RUF009 - frozen
    reopen: Callable[[], int | None] | None = None
    made_of: Mapping[str, Signature] = field(default_factory=dict)
    rotation: Rotation | None = None
    health_directory: int | None = None
    view_directory: int | None = None
    kubernetes: KubernetesSettings | None = None

    @property
    def rings(self) -> LoaderSettings | None:
        """The settings of the rings, when there are rings."""
        return self.loader if isinstance(self.loader, LoaderSettings) else None

    @property
    def recording(self) -> list[int]:
        """The file that is made of records, where there is one."""
        return [] if self.recording_fd is None else [self.recording_fd]

    @property
    def descriptors(self) -> list[int]:
        """Of the descriptor sets, where there are some."""
        return [] if self.descriptors_fd is None else [self.descriptors_fd]


class Messages:
    """Makes start messages. ``blocks`` of the counters' memory: the shards', then loader, sink and supervisor; ``uid`` is
    the user that the stages without privilege become, None for none.
    """

    def __init__(self, plan: Plan, blocks: int, uid: int | None) -> None:
        self._plan = plan
        self._shards = plan.supervisor.shards
        self._common: dict[str, Any] = {
            "log_level": plan.supervisor.log_level,
            "blocks": blocks,
            "uid": uid,
            "token": secrets.token_hex(8),
            "shards": self._shards,
        }

    def shard(
        self, number: int, life: int, *, buffer_bytes: int, suspects: Sequence[int], rings: Rings | None
    ) -> ShardStart:
        """For one life of a shard. ``buffer_bytes`` is its budget now, ``rings`` what it maps, if there are any yet."""
        return ShardStart(
            **self._common,
            block=number,
            number=number,
            life=life,
            live=self._plan.supervisor.live,
            settings=replace(self._plan.shard, buffer_bytes=buffer_bytes),
            suspects=tuple(suspects),
            descriptors=self._plan.descriptors_fd is not None,
            rings=rings,
        )

    def first_stage(
        self, *, ours: Sequence[int], known: Sequence[int], adopt: Adoption | None = None, reader_uid: int | None = None
    ) -> LoaderStart | ReplayStart:
        """For the loader (LoaderStart says what the arguments are), or what stands in its place."""
        settings = self._plan.loader
        if isinstance(settings, ReplaySettings):
            return ReplayStart(**self._common, block=self._shards, settings=settings)
        return LoaderStart(
            **self._common,
            block=self._shards,
            settings=settings,
            adopt=adopt,
            reader_uid=reader_uid,
            ours=tuple(ours),
            known=tuple(known),
        )

    def sink(self, slots: Sequence[tuple[int, int]]) -> SinkStart:
        """For the sink, with the (shard, life) of the memory that comes along."""
        return SinkStart(
            **self._common,
            block=self._shards + 1,
            settings=self._plan.sink,
            output=self._plan.output_fd is not None,
            recording=self._plan.recording_fd is not None,
            slots=tuple(slots),
        )
