"""The table of docs/rebalancing.md, "Where reading begins", walked line by line on a real broker.

Every line with each `start`, for source and retry feeds, under both group protocols. Nothing is handled: what
counts is where each partition begins, and what is told.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer as Client
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from relance import App, RetryPolicy, Settings, TopicPartition
from relance.clock import SystemClock
from relance.kafka.admin import Admin
from relance.kafka.config import common_config, consumer_config
from relance.kafka.poller import Poller
from relance.kafka.starts import Feed, Start
from relance.kafka.transactional import committed_offsets
from relance.kafka.watch import TopicWatch
from relance.runtime import Runtime
from relance.spec import feeds_of
from waiting import wait_until
from world import Hooks, a_plan

DOCS = Path(__file__).parents[2] / "docs/rebalancing.md"
STARTS = ("earliest", "latest", "fail")
PROTOCOLS = ("classic", "consumer")
READERS = (*STARTS, "retry")  # the last reads as with the first, whatever start says

COMMITTED, RECORDS = 5, 10
NOT_OURS = {"relance-group": b"another"}  # a retry feed has nothing to do with it
PLACES = {0: "beginning", COMMITTED: "there", RECORDS: "end"}

CASES = {  # by how the documents call it: the name here, and what the log says where reading is not "there"
    "the group has no commit in the topic: it begins": ("none", "no committed offset"),
    "a commit of relance": ("ours", ""),
    "a commit of another program": ("foreign", "is no map that relance reads"),
    "a commit that was copied from another cluster with its metadata": (
        "moved",
        "committed on another cluster",
    ),
    "a commit to a topic that was deleted and made again since": ("stale", "was made again since"),
    "the topic is deleted and made again while members run": ("again-up", "the group is older than its log"),
    "the topic was deleted and made again while no member ran": ("again-down", "no committed offset"),
    "a partition appeared while members run": ("grown-up", "has appeared since the group began"),
    "a partition appeared while no member ran": ("grown-down", "has appeared since the group began"),
    "the committed offset is no longer in the log": ("gone", "is outside the log"),
}
BEGUN = ("ours", "again-up", "again-down", "grown-up", "grown-down")  # what the group has read before


def the_table() -> dict[str, dict[str, str]]:
    """By case and start, where reading begins."""
    section = DOCS.read_text().split("\n## Where reading begins\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line[:1] == "|"
    ]
    assert [cell.strip("`") for cell in rows[0][1:4]] == list(STARTS)
    found = {}
    for text, *places, _ in rows[2:]:
        [case] = [CASES[known][0] for known in CASES if text.startswith(known)]
        found[case] = dict(zip(STARTS, places, strict=True))
    assert found.keys() == {case for case, _ in CASES.values()}
    return found


class Reader:
    """One client with all that tells it where to begin, and no workers."""

    def __init__(self, bootstrap: str, feed: Feed, protocol: str) -> None:
        client = {"group.protocol": protocol, "topic.metadata.refresh.interval.ms": 300}
        settings = Settings(
            group=feed.group,
            bootstrap_servers=bootstrap,
            session_timeout=6.0,
            heartbeat_interval=0.5,
            client=client,
        )
        self.feed = feed
        self.starts: dict[TopicPartition, Start] = {}
        self.failures: list[Exception] = []
        self.watch = TopicWatch(
            Admin(bootstrap, common_config(settings)),
            feed.topics,
            self._topic_seen,
            lambda admin: None,
            self.failures.append,
            interval=0.2,
        )
        self.runtime = Runtime(
            a_plan(), clock=SystemClock(), random=lambda: 0.5, hooks=Hooks(), on_failure=self.failures.append
        )
        self._assign = self.runtime.assigned
        self.runtime.assigned = self._assigned  # type: ignore[method-assign]
        self.poller = Poller(
            feed,
            self.runtime,
            consumer_config(settings, feed=feed.group, group=feed.group, assignor="cooperative-sticky"),
            commit_interval=0.1,
            logs=self.watch,
            others=partial(committed_offsets, common_config(settings), feed.group, stable=False),
        )
        self.watch.remember()
        self.watch.start()
        self.poller.start()

    def _assigned(self, feed: str, starts: Sequence[Start]) -> None:
        self.starts |= {start.tp: start for start in starts}
        self._assign(feed, starts)

    def _topic_seen(self, topic: str, topic_id: str) -> None:
        if stale := self.runtime.stale(topic, topic_id):
            self.poller.restart(stale)

    def leave(self) -> None:
        self.watch.stop()
        deadline = time.monotonic() + 5.0
        self.runtime.drain(deadline)
        self.poller.stop(deadline)
        assert self.poller.join(10.0)
        assert self.watch.join(5.0)
        assert self.failures == []


def nothing(value: bytes) -> None:
    """No worker calls it."""


class Walk:
    """One protocol with one reader: a group, and a topic for each case."""

    def __init__(self, bootstrap: str, protocol: str, reader: str) -> None:
        self.bootstrap, self.protocol, self.reader = bootstrap, protocol, reader
        self.name = f"walk-{protocol}-{reader}"
        app = App(self.name, settings=Settings(bootstrap_servers=bootstrap))
        options: dict[str, Any] = {"start": "latest" if reader == "retry" else reader}
        if reader == "retry":
            options |= {"retry_topic": "walk.retry", "retry": RetryPolicy.fixed(max_attempts=2)}
        app.consumer(*self.topics(CASES), **options)(nothing)
        self.feed = feeds_of(app._specs[0], self.name)[-1]
        self.feed = replace(self.feed, topics=tuple(self.topics(CASES)))

    def topic(self, case: str) -> str:
        return f"{self.name}-{case}"

    def topics(self, cases: Iterable[str]) -> list[str]:
        return [self.topic(CASES[case][0] if case in CASES else case) for case in cases]

    def begin(self) -> Reader:
        """The group has begun to read some of the topics; with another start, which is of no importance."""
        feed = replace(self.feed, topics=tuple(self.topics(BEGUN)), start="earliest")
        return Reader(self.bootstrap, feed, self.protocol)

    def commit(self, cluster: str) -> None:
        """What is committed when the members start."""
        known = Admin(self.bootstrap).committed(self.feed.group)
        texts = {case: known[TopicPartition(self.topic(case), 0)].metadata for case in BEGUN}
        assert all(f"@{cluster}+1:" in text for text in texts.values()), texts
        texts["foreign"] = "host-7"
        texts["moved"] = re.sub("r1:[^:]*:[^:]*:", "r1:of-another:o2.9.7~7x1@of-another+1:", texts["ours"])
        texts["stale"] = re.sub("r1:[^:]*:", "r1:of-another:", texts["ours"])
        plain = Client({"bootstrap.servers": self.bootstrap, "group.id": self.feed.group})
        found = [ClientPartition(self.topic(case), 0, COMMITTED, text) for case, text in texts.items()]
        found.append(ClientPartition(self.topic("gone"), 0, 2 * RECORDS))
        plain.commit(offsets=found, asynchronous=False)
        plain.close()

    def watched(self, case: str) -> TopicPartition:
        return TopicPartition(self.topic(case), int(case.startswith("grown")))

    def expected(self, table: dict[str, dict[str, str]]) -> dict[str, str]:
        start = "earliest" if self.reader == "retry" else self.reader
        return {case: places[start] for case, places in table.items()}


def place(start: Start) -> str:
    return "stops" if start.problem is not None else PLACES[start.offset]


class Topics:
    """Makes, fills, grows and deletes topics, many at once."""

    def __init__(self, admin: AdminClient, bootstrap: str) -> None:
        self._admin, self._bootstrap = admin, bootstrap

    def make(self, topics: Sequence[str]) -> None:
        self._wait(self._admin.create_topics([NewTopic(topic, 1) for topic in topics]))
        self._fill(topics, 0)

    def grow(self, topics: Sequence[str]) -> None:
        self._wait(self._admin.create_partitions([NewPartitions(topic, 2) for topic in topics]))
        self._fill(topics, 1)

    def make_again(self, topics: Sequence[str]) -> None:
        self._wait(self._admin.delete_topics(list(topics)))
        wait_until(lambda: not self._admin.list_topics(timeout=10.0).topics.keys() & set(topics))
        self.make(topics)

    def _fill(self, topics: Sequence[str], partition: int) -> None:
        def there(topic: str) -> bool:
            found = self._admin.list_topics(topic, timeout=10.0).topics[topic]
            return len(found.partitions) == partition + 1

        producer = Producer({"bootstrap.servers": self._bootstrap})  # another one knows other partitions
        for topic in topics:
            wait_until(partial(there, topic))
            for number in range(RECORDS):
                producer.produce(topic, str(number), partition=partition, headers=NOT_OURS)
        assert producer.flush(30) == 0

    def _wait(self, futures: dict[str, Any]) -> None:
        for future in futures.values():
            future.result(15.0)


def test_every_line_of_the_table_holds_for_source_and_retry_feeds_under_both_protocols(
    bootstrap: str, admin: AdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    table, topics = the_table(), Topics(admin, bootstrap)
    walks = [Walk(bootstrap, protocol, reader) for protocol in PROTOCOLS for reader in READERS]

    def of_all(*cases: str) -> list[str]:
        return [topic for walk in walks for topic in walk.topics(cases)]

    def of_each(readers: Sequence[Reader]) -> list[tuple[Walk, Reader]]:
        return list(zip(walks, readers, strict=True))

    def until_all(condition: Callable[[Walk, Reader], bool], readers: Sequence[Reader]) -> None:
        pairs = of_each(readers)
        wait_until(
            lambda: all(condition(walk, reader) for walk, reader in pairs),
            30.0,
            lambda: "\n".join(f"{w.name}: {sorted(r.starts)}" for w, r in pairs if not condition(w, r)),
        )

    topics.make(of_all(*CASES))
    readers = [walk.begin() for walk in walks]
    try:
        asks = Admin(bootstrap)
        until_all(lambda walk, _: len(asks.committed(walk.feed.group)) == len(BEGUN), readers)
    finally:
        for reader in readers:
            reader.leave()
    cluster = admin.describe_cluster().result(10.0).cluster_id
    for walk in walks:
        walk.commit(cluster)
    topics.grow(of_all("grown-down"))
    topics.make_again(of_all("again-down"))

    caplog.clear()
    readers = [Reader(bootstrap, walk.feed, walk.protocol) for walk in walks]

    def id_of(walk: Walk, reader: Reader, case: str) -> str:
        start = reader.starts.get(walk.watched(case))
        return "" if start is None else start.topic_id

    down = [case for case in table if not case.endswith("-up")]
    try:
        down.append("again-up")
        until_all(lambda walk, reader: all(id_of(walk, reader, case) for case in down), readers)
        old = {walk.name: reader.starts[walk.watched("again-up")] for walk, reader in of_each(readers)}
        topics.grow(of_all("grown-up"))
        topics.make_again(of_all("again-up"))
        until_all(lambda walk, reader: bool(id_of(walk, reader, "grown-up")), readers)
        until_all(
            lambda walk, reader: id_of(walk, reader, "again-up") != old[walk.name].topic_id,
            readers,
        )
    finally:
        for reader in readers:
            reader.leave()
    assert {place(start) for start in old.values()} == {"there"}

    found = {
        walk.name: {case: place(reader.starts[walk.watched(case)]) for case in table}
        for walk, reader in of_each(readers)
    }
    assert found == {walk.name: walk.expected(table) for walk in walks}
    phrases = dict(CASES.values())
    silent = [
        (walk.name, case)
        for walk in walks
        for case, where in walk.expected(table).items()
        if phrases[case] and (walk.feed.start != "earliest" or case in ("foreign", "moved", "stale", "gone"))
        if not any(phrases[case] in line and walk.topic(case) in line for line in caplog.messages)
    ]
    assert silent == []
