"""The client settings that relance sets by itself, and that the user's win."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import IsolationLevel

from relance import Settings
from relance.kafka import producer, transactional
from relance.kafka.asking import Asker
from relance.kafka.browse import Browser
from relance.kafka.cluster import Watermarks
from relance.kafka.config import common_config, consumer_config
from relance.kafka.producer import KafkaProducer
from relance.record import TopicPartition


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


def a_token(config: str) -> tuple[str, float]:
    return f"a token for {config}", 1.0


def test_a_callable_of_a_module_travels_to_the_process_that_asks_about_groups() -> None:
    common = common_config(Settings(client={"oauth_cb": a_token}))
    assert pickle.loads(pickle.dumps(common))["oauth_cb"]("me") == ("a token for me", 1.0)


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


# -- what promises rest on -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        (
            "enable.auto.commit",
            False,
        ),  # an offset is committed when its record is finished, and by nobody else
        ("enable.auto.offset.store", False),
        ("auto.offset.reset", "error"),  # no silent reset
        ("enable.partition.eof", True),  # the frontier passes markers at the log's end
        ("isolation.level", "read_committed"),  # what a transaction took back never reaches a handler
        ("allow.auto.create.topics", False),
    ],
)
def test_a_consumer_s_client_keeps_what_the_engine_rests_on(setting: str, value: object) -> None:
    assert config()[setting] == value


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("partitioner", "murmur2_random"),  # a key lands where Java's producers put it
        ("enable.idempotence", True),  # a write that is tried again is written once
        ("max.in.flight.requests.per.connection", 4),
    ],
)
def test_a_producer_s_client_keeps_what_order_and_once_rest_on(
    setting: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []

    def client(config: dict[str, Any], logger: object) -> Any:
        given.append(config)
        return SimpleNamespace(poll=lambda timeout: None, flush=lambda timeout: 0)

    monkeypatch.setattr(producer, "Client", client)
    KafkaProducer({"bootstrap.servers": "b:1"}, name="p", timeout=1.0).close(0.0)
    KafkaProducer({"bootstrap.servers": "b:1", setting: "mine"}, name="p", timeout=1.0).close(0.0)
    assert [config[setting] for config in given] == [value, "mine"]


def test_a_transaction_puts_keys_where_all_others_put_them() -> None:
    ours = transactional.producer_config({"bootstrap.servers": "b:1"}, "g", 1_000_000)
    theirs = transactional.producer_config({"partitioner": "random"}, "g", 1_000_000)
    assert (ours["partitioner"], theirs["partitioner"]) == ("murmur2_random", "random")


def test_who_looks_at_letters_sees_none_that_a_transaction_took_back() -> None:
    assert Browser("b:1")._settings["isolation.level"] == "read_committed"


@pytest.mark.parametrize(("stable", "level"), [(True, "read_committed"), (False, "read_uncommitted")])
def test_offsets_of_a_group_are_asked_for_after_its_open_transaction_or_at_once(
    stable: bool, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []

    def consumer(config: dict[str, Any], logger: object) -> Any:
        given.append(config)
        return SimpleNamespace(committed=lambda tps, timeout: [], close=lambda: None)

    monkeypatch.setattr(transactional, "Consumer", consumer)
    assert transactional.committed_offsets({}, "g", [TopicPartition("t", 0)], stable=stable) == {}
    assert [config["isolation.level"] for config in given] == [level]


@pytest.mark.parametrize(
    ("stable", "level"), [(True, IsolationLevel.READ_COMMITTED), (False, IsolationLevel.READ_UNCOMMITTED)]
)
def test_stable_ends_are_those_that_a_reader_of_transactions_reaches(
    stable: bool, level: IsolationLevel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[IsolationLevel] = []

    def offsets_at(
        self: Asker,
        tps: Sequence[TopicPartition],
        spec: object,
        deadline: float,
        must_exist: str | None,
        isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
    ) -> dict[TopicPartition, int]:
        asked.append(isolation)
        return dict.fromkeys(tps, len(asked))

    monkeypatch.setattr(Asker, "_offsets_at", offsets_at)
    tp = TopicPartition("t", 0)
    asking = object.__new__(Asker)
    assert asking.offsets([tp], 1.0, stable=stable) == {tp: Watermarks(1, 2)}
    assert asked[1] is level
    assert asking.stable_ends([tp], 1.0) == {tp: 3}
    assert asked[2] is IsolationLevel.READ_COMMITTED
