"""Looking into topics on a real broker: newest first, page by page, over gaps, bounded, and unseen."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import Producer

from relance.errors import BrokerUnavailableError, SettingsError, TopicMissingError
from relance.kafka.admin import Admin
from relance.kafka.browse import Browser, FetchedRecord

MakeTopic = Callable[..., str]


@pytest.fixture
def looks(bootstrap: str) -> Browser:
    return Browser(bootstrap, timeout=15.0)


def send(bootstrap: str, topic: str, *, partition: int, at: list[int], value: bytes = b"v") -> None:
    """One record for each timestamp (milliseconds after a fixed moment)."""
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 2_000_000})
    for ms in at:
        producer.produce(topic, value, partition=partition, timestamp=1_700_000_000_000 + ms)
    assert producer.flush(20) == 0


def read_all(browser: Browser, topic: str, n: int) -> list[FetchedRecord]:
    found: list[FetchedRecord] = []
    before = None
    for _ in range(1000):
        page = browser.page(topic, n, before=before)
        assert len(page.records) <= n
        found += page.records
        before = page.before
        if before is None:
            return found
    raise AssertionError("paging never ended")


def places(records: list[FetchedRecord] | tuple[FetchedRecord, ...]) -> list[tuple[int, int]]:
    return [(r.partition, r.offset) for r in records]


def test_the_latest_come_newest_first_across_partitions(
    looks: Browser, bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = make_topic("browse-order", 3)
    send(bootstrap, topic, partition=0, at=[0, 30])
    send(bootstrap, topic, partition=1, at=[10, 40])
    send(bootstrap, topic, partition=2, at=[20, 40])
    assert places(looks.latest(topic, 4)) == [(2, 1), (1, 1), (0, 1), (2, 0)]
    assert places(looks.latest(topic, 1, partition=0)) == [(0, 1)]
    assert places(looks.latest(topic, 10, before={0: 1, 1: 0, 2: 1})) == [(2, 0), (0, 0)]


def test_a_record_is_shown_with_all_it_carries(looks: Browser, bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic("browse-record")
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic, None, key=b"", headers=[("a", None), ("a", b"\xff"), ("é", b"")])
    producer.produce(topic, b"", key=None, timestamp=1_700_000_000_123)
    assert producer.flush(10) == 0
    newest, oldest = sorted(looks.latest(topic, 5), key=lambda r: -r.offset)
    assert (newest.key, newest.value, newest.headers, newest.problem) == (None, b"", (), "")
    assert newest.timestamp is not None
    assert newest.timestamp.isoformat() == "2023-11-14T22:13:20.123000+00:00"
    assert (oldest.key, oldest.value) == (b"", None)
    assert oldest.headers == (("a", None), ("a", b"\xff"), ("é", b""))


@pytest.mark.parametrize("n", [1, 7, 1000])
def test_pages_follow_one_another_without_a_gap_or_a_repeat(
    looks: Browser, bootstrap: str, make_topic: MakeTopic, n: int
) -> None:
    topic = make_topic("browse-pages", 3)
    # Timestamps that go backwards within a partition must not make a page lose or repeat a record.
    send(bootstrap, topic, partition=0, at=[50, 10, 40, 20, 30])
    send(bootstrap, topic, partition=1, at=list(range(0, 60, 5)))
    found = read_all(looks, topic, n)
    expected = [(0, o) for o in range(5)] + [(1, o) for o in range(12)]
    assert sorted(places(found)) == expected
    for partition in (0, 1):
        offsets = [r.offset for r in found if r.partition == partition]
        assert offsets == sorted(offsets, reverse=True)
    assert looks.count(topic) == 17


def test_transaction_markers_and_aborted_records_are_passed_over(
    looks: Browser, bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = make_topic("browse-markers", 2)
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": topic}, logger=_Quiet())
    producer.init_transactions(20)
    for i in range(40):
        producer.begin_transaction()
        producer.produce(topic, str(i).encode(), partition=i % 2)
        producer.flush(10)
        (producer.abort_transaction if i >= 4 else producer.commit_transaction)(20)
    for n in (1, 3, 50):
        assert sorted(r.value or b"" for r in read_all(looks, topic, n)) == [b"0", b"1", b"2", b"3"]
    assert looks.count(topic) == 80, "the count is the offsets' and says so: markers and aborted ones are in"


def test_a_filter_scans_back_and_its_cursor_goes_on_where_it_stopped(
    looks: Browser, bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = make_topic("browse-filter")
    producer = Producer({"bootstrap.servers": bootstrap})
    for i in range(500):
        producer.produce(topic, b"", key=f"k{i}".encode())
    assert producer.flush(10) == 0

    def match(record: FetchedRecord) -> bool:
        return record.key in {b"k490", b"k20"}

    first = looks.page(topic, 10, match=match, max_scan=100)
    assert ([r.key for r in first.records], first.scanned, first.cut) == ([b"k490"], 100, "scan")
    second = looks.page(topic, 10, match=match, before=first.before)
    assert ([r.key for r in second.records], second.before, second.cut) == ([b"k20"], None, "")


def test_a_page_of_large_records_is_cut_by_bytes_and_paging_still_brings_all(
    bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = make_topic("browse-large")
    send(bootstrap, topic, partition=0, at=list(range(12)), value=bytes(400_000))
    small = Browser(bootstrap, timeout=15.0, max_bytes=1_000_000)
    page = small.page(topic, 12)
    assert ([r.offset for r in page.records], page.cut) == ([11, 10], "bytes")
    assert sorted(r.offset for r in read_all(small, topic, 12)) == list(range(12))
    assert [r.offset for r in small.latest(topic, 12)] == list(range(11, -1, -1))
    assert [r.offset for r in small.latest(topic, 7)] == list(range(11, 4, -1))
    tiny = Browser(bootstrap, timeout=15.0, max_bytes=1)
    assert [r.offset for r in read_all(tiny, topic, 5)] == list(range(11, -1, -1))


def test_looking_leaves_no_trace_in_the_cluster(
    looks: Browser, bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = make_topic("browse-trace")
    send(bootstrap, topic, partition=0, at=[0])
    assert len(looks.latest(topic, 5)) == 1
    assert "relance-browse" not in {group.name for group in Admin(bootstrap).groups()}


def test_nothing_there_is_an_empty_page(looks: Browser, make_topic: MakeTopic) -> None:
    topic = make_topic("browse-empty", 2)
    page = looks.page(topic, 10)
    assert (page.records, page.before, page.cut) == ((), None, "")
    assert looks.latest(topic, 0) == []
    assert looks.count(topic) == 0


def test_cursors_beyond_both_ends_are_brought_back(
    looks: Browser, bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = make_topic("browse-beyond")
    send(bootstrap, topic, partition=0, at=[0, 1])
    assert places(looks.latest(topic, 5, before={0: 2**63 - 1})) == [(0, 1), (0, 0)]
    assert looks.latest(topic, 5, before={0: -5}) == []


def test_what_is_not_there_is_told(looks: Browser, make_topic: MakeTopic) -> None:
    with pytest.raises(TopicMissingError, match="no-such-topic"):
        looks.latest("no-such-topic", 1)
    with pytest.raises(SettingsError, match="no partition 9"):
        looks.latest(make_topic("browse-missing"), 1, partition=9)
    with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1 "):
        Browser("127.0.0.1:1", timeout=0.3).latest("any", 1)


class _Quiet:
    def log(self, *_: object) -> None:
        """The transactional client says on stderr that its coordinator is loading."""


def test_concurrent_looks_do_not_mix(looks: Browser, bootstrap: str, make_topic: MakeTopic) -> None:
    topics = [make_topic("browse-many") for _ in range(4)]
    for topic, count in zip(topics, itertools.count(1), strict=False):
        send(bootstrap, topic, partition=0, at=list(range(count)))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda topic: looks.latest(topic, 10), topics))
    assert [len(each) for each in found] == [1, 2, 3, 4]
    assert [{r.topic for r in each} for each in found] == [{topic} for topic in topics]
