"""The client settings that relance sets by itself, and that the user's win."""

from __future__ import annotations

from typing import Any

import pytest

from relance import Settings
from relance.kafka.config import common_config, consumer_config


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


def test_a_callable_of_the_user_that_raises_is_told_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def token(config: str) -> tuple[str, float]:
        asked.append(config)
        if config == "down":
            raise RuntimeError("the identity provider\nis away")
        return "token", 1.0

    watched = common_config(Settings(client={"oauth_cb": token}))["oauth_cb"]
    assert watched("up") == ("token", 1.0)
    assert caplog.messages == []
    for _ in range(2):
        with pytest.raises(RuntimeError, match="identity provider"):
            watched("down")
    assert asked == ["up", "down", "down"]
    [told] = caplog.messages
    assert told.startswith("client.oauth_cb: test_a_callable_of_the_user_that_raises_is_told_by_its_name.")
    assert told.endswith("token raised RuntimeError: the identity provider␊is away")
