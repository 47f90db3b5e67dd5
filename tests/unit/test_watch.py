"""What watches the topics: a defect in it is told, not lost with its thread."""

from __future__ import annotations

import threading
from typing import cast

from relance.kafka.admin import Admin, Identity
from relance.kafka.watch import TopicWatch


class Broken:
    def identity(self, topic: str) -> Identity:
        raise LookupError(f"no way to ask for {topic}")


def test_a_defect_of_the_watch_is_told() -> None:
    told: list[Exception] = []
    heard = threading.Event()

    def failed(error: Exception) -> None:
        told.append(error)
        heard.set()

    watch = TopicWatch(
        cast("Admin", Broken()),
        ["orders"],
        lambda topic, id: None,
        lambda admin: None,
        failed,
        interval=0.001,
    )
    watch.start()
    assert heard.wait(10.0)
    assert [str(error) for error in told] == ["no way to ask for orders"]
