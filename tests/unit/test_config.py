"""The client settings that relance sets by itself, and that the user's win."""

from __future__ import annotations

from typing import Any

from relance import Settings
from relance.kafka.config import consumer_config


def config(place: int = 1, **client: Any) -> dict[str, Any]:
    return consumer_config(
        Settings(client=client), feed="source", group="g", assignor="cooperative-sticky", place=place
    )


def test_what_is_fetched_ahead_is_bounded_at_four_mebibytes_unless_told() -> None:
    assert config()["queued.max.messages.kbytes"] == 4 * 1024
    assert config(**{"queued.max.messages.kbytes": 99})["queued.max.messages.kbytes"] == 99


def test_each_consumer_of_an_app_is_a_static_member_of_its_own() -> None:
    static = {"group.instance.id": "shop-1"}
    assert [config(place, **static)["group.instance.id"] for place in (1, 2, 3)] == [
        "shop-1",
        "shop-1-2",
        "shop-1-3",
    ]
    assert "group.instance.id" not in config(2)
