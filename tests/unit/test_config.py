"""The client settings that relance sets by itself, and that the user's win."""

from __future__ import annotations

from typing import Any

from relance import Settings
from relance.kafka.config import consumer_config


def config(**client: Any) -> dict[str, Any]:
    return consumer_config(Settings(client=client), feed="source", group="g", assignor="cooperative-sticky")


def test_what_is_fetched_ahead_is_bounded_at_four_mebibytes_unless_told() -> None:
    assert config()["queued.max.messages.kbytes"] == 4 * 1024
    assert config(**{"queued.max.messages.kbytes": 99})["queued.max.messages.kbytes"] == 99
