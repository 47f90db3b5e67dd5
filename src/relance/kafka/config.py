"""The client settings that relance's promises rest on, in one place, each with its reason."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from relance.burst import LastingLog
from relance.settings import Settings
from relance.text import name_of, one_line, said

__all__ = ["common_config", "consumer_config", "is_cooperative"]


def common_config(settings: Settings) -> dict[str, Any]:
    """What every client needs to reach the cluster: address, security, and what the user gave."""
    given = {key: _Watched(key, one) if callable(one) else one for key, one in settings.client.items()}
    return {"bootstrap.servers": settings.bootstrap_servers, **given}


class _Watched:
    """A callable of the user, as `oauth_cb`, whose errors are logged: the client drops them in silence.

    It can be pickled where `called` can: the process that asks about groups gets these settings, too.
    """

    def __init__(self, key: str, called: Callable[..., Any]) -> None:
        self._key = key
        self._called = called
        self._log = LastingLog("relance.kafka")

    def __call__(self, *given: Any) -> Any:
        try:
            return self._called(*given)
        except BaseException as error:
            what = f"client.{self._key}: {name_of(self._called)} raised {one_line(said(error))}"
            self._log.warning(self._key, what)
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        return _Watched, (self._key, self._called)


def is_cooperative(settings: Settings, assignor: str) -> bool:
    """Whether assignments change by increments (KIP-429, KIP-848) or all at once."""
    return settings.client.get("group.protocol") == "consumer" or assignor == "cooperative-sticky"


def consumer_config(
    settings: Settings, *, feed: str, group: str, assignor: str, owner: str = "", place: int = 1
) -> dict[str, Any]:
    """For a poller's client; `place`: of its consumer in its App, from 1.

    `owner` is the process's id in its commits' marks: host and pid may have been another process's before.
    """
    config: dict[str, Any] = {
        "group.id": group,
        "client.id": "-".join(filter(None, ("relance", socket.gethostname(), str(os.getpid()), owner, feed))),
        # Offsets are the engine's: nothing is stored, reset or committed behind its back.
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        # Transaction markers have offsets and are no records; at the log's end the frontier may pass them.
        "enable.partition.eof": True,
        # By default fetching stops for a second whenever the local queue is full: a fifth of the speed.
        "fetch.queue.backoff.ms": 1,
        # It counts values only: of small records the default, 64 MiB, is half a million, each with hundreds
        # of bytes more, which malloc then keeps.
        "queued.max.messages.kbytes": 4 * 1024,
        # Topics that are deleted and made again should be noticed in seconds, not in five minutes.
        "topic.metadata.refresh.interval.ms": 5000,
        "max.poll.interval.ms": int(settings.max_poll_interval * 1000),
        "allow.auto.create.topics": False,
        "log.connection.close": False,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "isolation.level": "read_committed",
    }
    if settings.client.get("group.protocol") != "consumer":
        # With group.protocol=consumer these three are the broker's.
        config["partition.assignment.strategy"] = assignor
        config["session.timeout.ms"] = int(settings.session_timeout * 1000)
        config["heartbeat.interval.ms"] = int(settings.heartbeat_interval * 1000)
    config |= common_config(settings)
    if place > 1 and (instance := config.get("group.instance.id")) is not None:
        # The consumers of an App are members of one group: under one id each would fence the one before. A
        # number, and not the client id's, so that it is the same after a restart.
        config["group.instance.id"] = f"{instance}-{place}"
    return config
