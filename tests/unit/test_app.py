"""The public front, without Kafka: what is refused before anything is written or runs."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from relance import App, RelanceError, SendError, Settings, SettingsError


class Producer:
    """Notes what it was asked to write."""

    def __init__(self) -> None:
        self.written: list[tuple[str, bytes | None]] = []

    def send(self, topic: str, value: bytes | None, *, key: bytes | None, headers: Any, answer: Any) -> None:
        self.written.append((topic, key))


def app_with(producer: Producer) -> App:
    app = App("g", bootstrap_servers="localhost:1")
    app._runner = SimpleNamespace(producer=producer)  # type: ignore[assignment]  # all that a send asks of it
    return app


WRONG = [
    ({"topic": "no topic"}, "'no topic' is no topic name"),
    ({"topic": None}, "None is no topic name"),
    ({"key": 7}, "a key is bytes, str or None, not int"),
    ({"key": "\ud800"}, "a key cannot be encoded"),
    ({"headers": {"name": b"value"}}, r"a header is \(name, value\), not 'name'"),
    ({"headers": [("name", "value")]}, "header 'name': a value is bytes or None, not str"),
    ({"headers": [("\ud800", b"")]}, "a header's name is a text"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG)
def test_what_cannot_be_sent_is_refused_at_once_with_the_reason(wrong: dict[str, Any], said: str) -> None:
    producer = Producer()
    with pytest.raises(SendError, match=said) as refused:
        app_with(producer).send(**{"topic": "out", "value": 1, **wrong})
    assert not refused.value.maybe_written
    assert producer.written == []


@pytest.mark.parametrize(("wrong", "said"), WRONG)
def test_a_dead_letter_of_what_cannot_be_sent_is_refused_in_the_same_way(
    wrong: dict[str, Any], said: str
) -> None:
    producer = Producer()
    letter = {"topic": "t.DLT", "value": 1, "key": None, "error": ValueError("no"), "source_topic": "t"}
    with pytest.raises(SendError, match=said):
        app_with(producer).dead_letter(**{**letter, **wrong})
    assert producer.written == []


def test_an_application_without_a_consumer_does_not_run_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(SystemExit) as end:
        App("g", bootstrap_servers="localhost:1").run()
    assert end.value.code == 2
    assert "has no consumer, so nothing would run: import what @app.consumer is in" in caplog.text


def test_what_can_be_sent_is_sent_with_its_key_as_bytes() -> None:
    producer = Producer()
    app = app_with(producer)
    app.send("out", {"n": 1}, key="k", headers=[("name", None)])
    app.dead_letter("t.DLT", b"raw", key=b"k", error=ValueError("no"), source_topic="t")
    assert producer.written == [("out", b"k"), ("t.DLT", b"k")]


@pytest.mark.parametrize(
    ("given", "variables", "said"),
    [
        ({}, {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "KAFKA_BOOTSTRAP_SERVERS"),
        (
            {},
            {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:2", "RELANCE_BOOTSTRAP_SERVERS": "127.0.0.1:1"},
            "RELANCE_BOOTSTRAP_SERVERS",
        ),
        (
            {"bootstrap_servers": "127.0.0.1:1"},
            {"RELANCE_BOOTSTRAP_SERVERS": "127.0.0.1:2"},
            "App(bootstrap_servers=...)",
        ),
        (
            {"settings": Settings(bootstrap_servers="127.0.0.1:1", start_timeout=0.0)},
            {"RELANCE_BOOTSTRAP_SERVERS": "127.0.0.1:2"},
            "Settings(bootstrap_servers=...)",
        ),
    ],
)
def test_a_start_tells_which_brokers_it_uses_and_who_said_so(
    given: dict[str, Any],
    variables: dict[str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "RELANCE_BOOTSTRAP_SERVERS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**variables, "RELANCE_START_TIMEOUT": "0"}.items():
        monkeypatch.setenv(name, value)
    caplog.set_level("INFO", "relance")
    app = App("shop", client={"sasl.password": "hunter2"}, **given)
    app.consumer("orders")(lambda value: None)
    with pytest.raises(SystemExit, match="1"):
        app.run()
    assert f"starting: group shop, brokers 127.0.0.1:1 (from {said})" in caplog.text
    assert "no Kafka broker answered at 127.0.0.1:1" in caplog.text
    assert "hunter2" not in caplog.text


def an_app() -> App:
    app = App("g", bootstrap_servers="localhost:1")
    app.consumer("t")(lambda value: None)
    return app


def test_a_stop_before_the_run_is_not_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "relance")
    app = an_app()
    app.stop()
    app.run()
    assert "stopped before it began" in caplog.text

    async def enter() -> None:
        app = an_app()
        app.stop()
        async with app.running():
            raise AssertionError("it was told to stop")

    with pytest.raises(RelanceError, match="before it began to run"):
        asyncio.run(enter())


def test_a_consumer_that_comes_after_the_run_began_is_refused_and_not_forgotten() -> None:
    app = an_app()
    late = app.consumer("late")
    app.stop()
    app.run()
    with pytest.raises(RelanceError, match="consumer late: too late, the application has begun to run"):
        late(lambda value: None)
    with pytest.raises(RelanceError, match="consumer later: too late"):
        app.consumer("later")


def test_an_app_runs_once_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELANCE_START_TIMEOUT", "0")
    app = App("shop", bootstrap_servers="127.0.0.1:1")
    app.consumer("orders")(lambda value: None)
    with pytest.raises(SystemExit):
        app.run()
    with pytest.raises(RelanceError, match=r"an App runs once\. To run again make another one"):
        app.run()

    async def run_again() -> None:
        async with app.running():
            """Not reached."""

    with pytest.raises(RelanceError, match="an App runs once"):
        asyncio.run(run_again())


@pytest.mark.parametrize("topic", ["^orders.*", r"orders\..*", "orders-[0-9]+", "a|b", re.compile("orders")])
@pytest.mark.parametrize("option", ["topics", "retry_topic", "dead_letter_topic"])
def test_a_pattern_of_topics_is_refused_as_such(topic: Any, option: str) -> None:
    app = App("shop", bootstrap_servers="localhost:1")
    topics, others = ((topic,), {}) if option == "topics" else (("orders",), {option: topic})
    with pytest.raises(
        SettingsError, match=f"^{option}: .* is a pattern; topics are read by their names only"
    ):
        app.consumer(*topics, **others)


def test_run_on_another_thread_or_where_a_loop_runs_says_what_to_enter_instead() -> None:
    app = App("g")

    @app.consumer("orders")
    async def handle(value: int) -> None:
        """Nothing comes."""

    told: list[str] = []

    def run() -> None:
        try:
            app.run()
        except RelanceError as error:
            told.append(str(error))

    thread = threading.Thread(target=run, name="of-a-notebook")
    thread.start()
    thread.join()

    async def in_a_loop() -> None:
        run()

    asyncio.run(in_a_loop())
    on_a_thread, with_a_loop = told
    assert "takes the main thread" in on_a_thread
    assert "'of-a-notebook'" in on_a_thread
    assert "one runs already, as in a notebook" in with_a_loop
    assert all("async with app.running()" in each for each in told)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"group": ""}, "group: must be a text that is not empty, as 'orders-consumer-group'"),
        ({"group": None}, "group: name the consumer group: App('orders-consumer-group')"),
        ({"group": "g", "client": "linger.ms=5"}, "client: 'linger.ms=5' are no settings by name"),
        ({"group": "g", "client": {5: 5}}, "client: {5: 5} are no settings by name"),
        ({"group": "g", "settings": {"group": "g"}}, "settings: {'group': 'g'} are no Settings"),
    ],
)
def test_what_an_app_cannot_be_made_of_is_named_with_the_way_out(given: Any, problem: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(problem)):
        App(**given)


def test_a_table_has_the_name_of_a_topic_and_takes_nothing_before_the_application_runs() -> None:
    app = App("g")
    with pytest.raises(SettingsError, match="'a b' is no topic name"):
        app.table("a b")
    with pytest.raises(RelanceError, match="table state: the application is not running"):
        app.table("state").put("k", {})
