"""Groups whose members wrote what no client would: who asks about them lives, and shows all the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

import httpx
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from tests.browser.console_process import console
from tests.kafka.wire import Forger, assignment, commit_for_nobody
from tests.waiting import wait_until

from relance import App
from relance.kafka.admin import Admin
from relance.record import TopicPartition as TP

MakeTopic = Callable[..., str]

ONE_BYTE = b"\x01"
"""librdkafka 2.16 fails an assertion over it, most times, and its process ends."""
FORGED = {
    "one": ONE_BYTE,
    "two": b"\0\0some text",
    "endless": b"\0\0\0\0\0\1\0\1t\x7f\xff\xff\xff",
    "utf": b"\0\0\0\0\0\1\0\2\xff\xfe\0\0\0\1\0\0\0\0\xff\xff\xff\xff",
    "negative": b"\0\0\0\0\0\1\0\1t\0\0\0\1\xff\xff\xff\xf0\xff\xff\xff\xff",
    "nameless": b"\0\0\0\0\0\1\xff\xff\0\0\0\1\0\0\0\0\xff\xff\xff\xff",
}


def test_the_console_shows_all_other_groups_and_says_which_it_cannot_read(
    bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = make_topic("forged")
    plain = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{topic}-plain"})
    plain.commit(offsets=[TopicPartition(topic, 0, 0)], asynchronous=False)
    plain.close()
    commit_for_nobody(bootstrap, topic, 0)
    with ExitStack() as stack:
        for name, mine in FORGED.items():
            stack.enter_context(Forger(bootstrap, f"{topic}-{name}", mine))
        web = stack.enter_context(console(bootstrap))
        client = stack.enter_context(httpx.Client(base_url=web.url, timeout=20))
        answer = client.get("/api/groups")
        assert answer.status_code == 200, answer.text
        found = {each["name"]: each for each in answer.json()["groups"]}
        for name in ("one", "two", "endless", "utf"):
            line = found[f"{topic}-{name}"]
            assert (line["state"], line["members"]) == ("stable", None), line
            assert line["problem"], line
        for name in ("negative", "nameless"):
            assert "no partition" in found[f"{topic}-{name}"]["problem"]
        assert (found[f"{topic}-plain"]["lag"], found[f"{topic}-plain"]["members"]) == (0, 0)
        assert "problem" in found[""]
        for address in ("/", "/groups", f"/groups/{topic}-one", f"/groups/{topic}-two"):
            assert client.get(address).status_code == 200, address
        assert "unreadable" in client.get("/groups").text
        assert client.get(f"/api/groups/{topic}-one").json()["members"] is None
        assert web.process.poll() is None
    # Nobody wrote anything forged into it any more.
    assert Admin(bootstrap).group(f"{topic}-plain").members == ()


def test_an_app_lives_with_a_member_that_wrote_what_kills_the_client(
    bootstrap: str, make_topic: MakeTopic, caplog: pytest.LogCaptureFixture
) -> None:
    topic = make_topic("forged-app", 2)
    app = App(f"{topic}-g", bootstrap_servers=bootstrap)
    handled = []

    @app.consumer(topic, assignor="range", start="earliest")
    def handle(value: str) -> None:
        handled.append(value)

    def watch(forger: Forger) -> None:
        wait_until(lambda: forger.follow() == 2 and app.assignment(), 20, "the App to be in the group")
        wait_until(
            lambda: "its members cannot be read" in caplog.text and forger.follow(),
            20,
            "it to look at its group",
        )
        producer = Producer({"bootstrap.servers": bootstrap})
        producer.produce(topic, b"after")
        producer.flush(10)
        wait_until(lambda: forger.follow() and handled, 10, "the App to go on")

    async def work(forger: Forger) -> None:
        async with app.running():
            await asyncio.to_thread(watch, forger)
            assert app.health().status == "UP"

    with Forger(bootstrap, f"{topic}-g", ONE_BYTE, assignment(topic, 0, 1)) as forger:
        asyncio.run(work(forger))
    assert "whether it counts this client among them is not watched" in caplog.text


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_whose_only_topic_was_deleted_is_shown_without_its_lag(
    bootstrap: str, make_topic: MakeTopic, protocol: str
) -> None:
    topic, other = make_topic("forged-gone"), make_topic("forged-stays")
    settings = {"bootstrap.servers": bootstrap, "group.protocol": protocol, "log_level": 0}
    consumer = Consumer(settings | {"group.id": f"{topic}-g"})
    consumer.subscribe([topic])
    wait_until(lambda: consumer.poll(0.1) is None and consumer.assignment(), 20, "the member to join")
    admin = Admin(bootstrap, timeout=10.0)
    admin.delete_topic(topic)
    for _ in range(2):
        (group,) = Admin(bootstrap, timeout=10.0).describe_groups([f"{topic}-g"]).values()
        assert group.lag is None or protocol == "consumer"
        assert len(group.members or ()) == 1
    gone, here = TP(topic, 0), TP(other, 0)
    assert set(admin.stable_ends([gone, here])) == {here}
    assert admin.stable_ends([gone]) == {}
    consumer.close()
