"""Questions to a cluster: over which client they go out."""

from __future__ import annotations

from typing import Any

from relance.kafka.asking import Asker


def test_a_question_about_groups_after_a_long_silence_goes_out_on_a_new_client() -> None:
    asker = Asker("localhost:1", None, 1.0)
    before = asker.client
    asker._used -= 3600.0
    asked: list[Any] = []

    def start(client: Any, _groups: list[str], _left: float) -> dict[str, Any]:
        asked.append(client)
        return {}

    assert asker.ask_coordinators("describe the groups", ["g"], start, asker.deadline()) == ({}, {})
    assert asked == [asker.client]
    assert asker.client is not before
