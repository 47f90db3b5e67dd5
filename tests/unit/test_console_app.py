"""The console's pages and JSON over an invented cluster: what they say, and that none of it is markup."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from relance.console.app import create_app
from relance.console.asks import Asks, TopicView
from relance.console.params import Look
from relance.console.show import RecordView
from relance.dead_letters import build, encode
from relance.errors import BrokerUnavailableError, RelanceError, TopicMissingError
from relance.kafka.admin import (
    GroupInfo,
    GroupMissingError,
    GroupSummary,
    Member,
    PartitionInfo,
    PartitionLag,
    TopicInfo,
)
from relance.kafka.browse import FetchedRecord, Page
from relance.kafka.cluster import checked_topic_name
from relance.record import TopicPartition

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
NOW = datetime(2026, 11, 23, 20, 16, tzinfo=UTC)


def a_record(offset: int, **changes: Any) -> FetchedRecord:
    facts: dict[str, Any] = {"topic": "orders", "partition": 0, "offset": offset, "key": b"k"}
    facts |= {"value": b'{"a":1}', "headers": (), "timestamp": NOW + timedelta(seconds=offset)}
    return FetchedRecord(**(facts | changes))


class Invented(Asks):
    """A cluster in memory; `fails` is raised by every question."""

    def __init__(self, records: list[FetchedRecord] | None = None, group: str = "shop") -> None:
        self.bootstrap_servers = "kafka.example:9092"
        self.records = [a_record(0), a_record(1)] if records is None else records
        self.group_name = group
        self.fails: Exception | None = None
        self.asked: list[Look] = []
        self.listed = [TopicInfo("orders", 1, 2, False), TopicInfo("orders.DLT", 3, 4, False, 1)]

    def _check(self) -> None:
        if self.fails:
            raise self.fails

    async def brokers(self) -> int:
        self._check()
        return 3

    async def topics(self) -> list[TopicInfo]:
        self._check()
        return [TopicInfo("__consumer_offsets", 50, 9, True), *self.listed]

    async def topic(self, name: str) -> TopicView:
        self._check()
        if checked_topic_name(name) not in ("orders", "orders.DLT"):
            raise TopicMissingError(name, bootstrap_servers=self.bootstrap_servers)
        end = 1 + max((r.offset for r in self.records), default=-1)
        return TopicView(name, (PartitionInfo(0, 1, 1, 1, 0, end),), {"cleanup.policy": "compact"})

    async def page(self, topic: str, look: Look) -> Page:
        await self.topic(topic)
        self.asked.append(look)
        top = dict(look.before).get(0, 2**63)
        below = [r for r in reversed(self.records) if r.offset < top and (not look.key or look.matches(r))]
        more = len(below) > look.limit
        page = tuple(below[: look.limit])
        return Page(page, {0: page[-1].offset} if more else None, len(below), "scan" if look.key else "")

    async def view(self, topic: str, look: Look, limit: int) -> tuple[Page, list[RecordView]]:
        page = await self.page(topic, look)
        return page, [RecordView.of(record, limit) for record in page.records]

    async def group(self, name: str) -> GroupInfo:
        self._check()
        if name != self.group_name:
            raise GroupMissingError(name)
        orders = TopicPartition("orders", 0)
        members = tuple(Member(f"c-{i}", "c", "10.0.0.1", None, (orders,) * (1 - i)) for i in (0, 1))
        rows = (PartitionLag("orders", 0, 3, 10, 7, "c-0"), PartitionLag("orders", 1, None, 5, None, None))
        return GroupInfo(name, "stable", "classic", "range", "10.0.0.2:9092", members, rows)

    async def groups(self) -> list[tuple[GroupSummary, GroupInfo | None]]:
        self._check()
        found = await self.group(self.group_name)
        summary = GroupSummary(self.group_name, "stable", "classic")
        return [(summary, found), (GroupSummary("gone", "dead", "classic"), None)]


class Visitor:
    """Asks the application as a server would, one request at a time."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def request(self, method: str, address: str, headers: dict[str, str] | None = None) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as client:
                return await client.request(method, address, headers=headers, follow_redirects=True)

        return asyncio.run(once())

    def get(self, address: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.request("GET", address, headers)


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


@pytest.fixture
def cluster() -> Invented:
    return Invented()


@pytest.fixture
def client(cluster: Invented) -> Visitor:
    return visitor(cluster)


def visitor(cluster: Invented, **options: Any) -> Visitor:
    app = create_app(cluster, **options)
    return Visitor(app)


class Forged(Invented):
    """A cluster with groups that can't be read, and one of which nobody knows the lag."""

    def __init__(self) -> None:
        super().__init__()
        left = (PartitionLag("orders", 0, 3, 10, 7, None),)
        gone = (PartitionLag("lost", 0, None, None, None, "c-0"),)
        member = Member("c-0", "c", "10.0.0.1", None, (TopicPartition("lost", 0),))
        self.found = {
            "unread": GroupInfo("unread", "unknown", "unknown", "", "", None, left, "wrote <b>"),
            "nameless": GroupInfo("nameless", "empty", "classic", "", "k:1", (), None, "has no name"),
            "goner": GroupInfo("goner", "stable", "classic", "range", "k:1", (member,), gone),
            "blank": GroupInfo("blank", "unknown", "unknown", "", "", None, (), "wrote nonsense"),
            "left": GroupInfo("left", "empty", "classic", "", "k:1", (), left),
        }

    async def group(self, name: str) -> GroupInfo:
        return self.found[name]

    async def groups(self) -> list[tuple[GroupSummary, GroupInfo | None]]:
        return [(GroupSummary(name, "stable", "classic"), info) for name, info in self.found.items()]


class Cut(Invented):
    """Each page is cut, for a reason that can be set."""

    why = "bytes"

    async def page(self, topic: str, look: Look) -> Page:
        page = await super().page(topic, look)
        return Page(page.records[: 0 if self.why == "time" else None], {0: 1}, page.scanned, self.why)


# -- pages -----------------------------------------------------------------------------------------------


def test_a_page_that_was_cut_says_why_and_how_to_go_on() -> None:
    client = visitor(cluster := Cut())
    page = client.get("/topics/orders").text
    assert "2 of 50: the records are large, so the page is shorter; “Older” goes on from there" in page
    assert 'rel="next"' in page
    told = client.get("/api/topics/orders/records").json()
    assert (told["cut"], told["next"]) == ("bytes", "0:1")
    cluster.why = "time"
    page = client.get("/topics/orders").text
    assert "Not read in time" in page
    assert "transaction markers" not in page
    alone = client.get("/topics/orders/0/1")
    assert "orders-0@1 was not read in time" in alone.text
    assert alone.status_code == 503, "that it holds no record would not be true"


def test_a_group_that_cannot_be_read_is_shown_as_that_among_the_others() -> None:
    client = visitor(Forged())
    page = client.get("/groups").text
    assert page.count("unreadable") == 2
    assert 'title="wrote &lt;b&gt;"' in page
    alone = client.get("/groups/unread").text
    assert "wrote &lt;b&gt;" in alone
    assert "cannot be read" in alone
    assert client.get("/groups/nameless").status_code == 200
    found = {each["name"]: each for each in client.get("/api/groups").json()["groups"]}
    assert found["unread"] == {
        "name": "unread",
        "state": "stable",
        "protocol": "classic",
        "members": None,
        "lag": 7,
        "problem": "wrote <b>",
    }
    assert (found["nameless"]["lag"], found["nameless"]["problem"]) == (None, "has no name")
    told = client.get("/api/groups/unread").json()
    assert (told["members"], told["problem"]) == (None, "wrote <b>")
    assert client.get("/api/groups/nameless").json()["partitions"] is None


def test_a_lag_that_nobody_knows_is_no_zero() -> None:
    client = visitor(Forged())
    assert client.get("/api/groups/goner").json()["lag"] is None
    assert client.get("/api/groups/blank").json()["lag"] is None, "nobody knows what its members hold"
    assert "<dt>Lag</dt><dd>–</dd>" in client.get("/groups/goner").text
    assert "<dt>Lag</dt><dd>7</dd>" in client.get("/groups/left").text


def test_a_group_without_members_is_not_counted_as_behind() -> None:
    page = visitor(Forged()).get("/").text
    assert "7 behind; 7 in groups without members" in page


def test_the_way_of_the_lab_leads_from_the_front_page_to_the_records(client: Visitor) -> None:
    front = client.get("/").text
    assert re.search(r'<a href="/topics"[^>]*>Topics</a>', front)
    listed = client.get("/topics").text
    assert re.search(
        r'<a href="/topics/orders">orders</a>.*?<td class="n">1</td>\s*<td class="n">2</td>', listed, re.S
    )
    topic = client.get("/topics/orders").text
    assert topic.count('<li data-key="0-') == 2


def test_topics_hide_what_is_kafkas_own_until_asked(client: Visitor) -> None:
    assert "__consumer_offsets" not in client.get("/topics").text
    assert "__consumer_offsets" in client.get("/topics?internal=1").text
    found = client.get("/topics?q=DLT").text
    assert ">orders.DLT</a>" in found
    assert ">orders</a>" not in found
    assert "1 offline" in found
    assert "No topic's name contains “zz”" in client.get("/topics?q=zz").text


def test_records_come_newest_first_with_all_their_parts() -> None:
    records = [a_record(0), a_record(1, key=None, value=None), a_record(2, headers=(("trace", b"t1"),))]
    page = visitor(Invented(records)).get("/topics/orders").text
    assert [int(n) for n in re.findall(r'<li data-key="0-(\d+)"', page)] == [2, 1, 0]
    assert "2026-11-23 20:16:02.000" in page
    assert '<th scope="row">trace</th><td>t1</td>' in page
    assert page.count('<i class="nil">null</i>') >= 2
    assert "{\n  &#34;a&#34;: 1\n}" in page


def test_older_pages_follow_by_a_cursor_that_keeps_the_filter() -> None:
    client = visitor(Invented([a_record(i) for i in range(60)]))
    page = client.get("/topics/orders?limit=25&partition=0").text
    (link,) = re.findall(r'<a href="(\?[^"]*)" rel="next"', page)
    assert link == "?limit=25&amp;partition=0&amp;before=0%3A35"
    older = client.get("/topics/orders" + link.replace("&amp;", "&")).text
    assert re.findall(r'<li data-key="0-(\d+)"', older)[0] == "34"
    assert "← Newest" in older


def test_a_record_has_a_page_of_its_own_with_its_neighbours() -> None:
    client = visitor(Invented([a_record(0), a_record(1, value=b"x" * 20_000), a_record(3)]))
    page = client.get("/topics/orders/0/1").text
    assert "x" * 20_000 in page
    assert 'href="/topics/orders/0/0" rel="prev"' in page
    assert 'href="/topics/orders/0/2" rel="next"' in page
    gap = client.get("/topics/orders/0/2")
    assert gap.status_code == 404
    assert "no record at offset 2: it keeps 0 to 3" in gap.text
    assert "11.5 KiB more of 19.5 KiB" in client.get("/topics/orders").text


def test_a_dead_letter_tells_its_error_above_the_raw_value() -> None:
    raw = encode(
        build(
            topic="orders", partition=2, offset=16, key=b"ORD-1", value=b'{"amount":-50}', group="shop",
            error=ValueError("Invalid amount"), attempts=4, now=NOW,
        )
    )  # fmt: skip
    page = visitor(Invented([a_record(0, value=raw)])).get("/topics/orders").text
    assert '<span class="tag bad">ValueError</span> Invalid amount' in page
    assert "<dt>Retries</dt><dd>3</dd>" in page
    assert '<a href="/topics/orders/2/16">orders-2@16</a>' in page
    assert page.index("Original value") < page.index("Value as it lies in the topic")


def test_a_group_shows_members_assignment_and_lag(client: Visitor) -> None:
    page = client.get("/groups/shop").text
    assert "10.0.0.1" in page
    assert '<span class="chip">0</span>' in page
    assert re.search(r"Total</th><td class=\"n\">7</td>", page)
    assert "none yet" in page
    assert '<i class="nil">nothing</i>' in page
    listed = client.get("/groups").text
    assert re.search(r">shop</a>.*?<td class=\"n\">2</td>\s*<td class=\"n\">7</td>", listed, re.S)


def test_empty_places_say_what_to_type() -> None:
    cluster = Invented(records=[])
    cluster.listed = []
    client = visitor(cluster)
    for address in ("/", "/topics"):
        page = client.get(address).text
        assert "No topics yet" in page
        assert "relance topics create orders --partitions 6" in page
    assert "relance produce orders --key k1" in client.get("/topics/orders").text
    assert "records looked at has a key that contains" in client.get("/topics/orders?key=zz").text


# -- text, never markup ----------------------------------------------------------------------------------


def test_nothing_that_lies_in_kafka_becomes_markup() -> None:
    evil = EVIL.encode()
    letter = encode(
        build(
            topic=EVIL, partition=0, offset=0, key=evil, value=evil, headers=[(EVIL, evil)], group=EVIL,
            error=type(EVIL, (Exception,), {})(EVIL), attempts=1, now=NOW,
        )
    )  # fmt: skip
    records = [a_record(0, key=evil, value=evil, headers=((EVIL, evil),)), a_record(1, value=letter)]
    client = visitor(Invented(records, group=EVIL))
    quoted = "%3Cscript%3Ealert%281%29%3C%2Fscript%3E%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E%22%27%26"
    for address in (
        "/topics/orders",
        "/topics/orders/0/0",
        "/topics/orders/0/1",
        "/groups",
        f"/groups/{quoted}",
        f"/topics?q={quoted}",
        f"/topics/orders?key={quoted}",
        f"/topics/{quoted}",
        f"/nothing/{quoted}",
    ):
        page = client.get(address).text
        assert "&lt;script&gt;" in page or "nothing" in address, address
        found = Tags(page)
        assert {"img", "b", "iframe"}.isdisjoint(found.names), address
        assert not [name for name, _ in found.attributes if name.startswith("on")], address
        assert found.names.count("script") == 1, address
        assert not [
            v for n, v in found.attributes if n in ("href", "src") and not v.startswith(("/", "?", "#"))
        ]


def test_every_answer_forbids_the_browser_to_run_what_is_not_ours(client: Visitor) -> None:
    for address in ("/", "/api/topics", "/topics/nope", "/static/console.js", "/health"):
        headers = client.get(address).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in headers


def test_no_page_holds_anything_that_the_policy_forbids(client: Visitor) -> None:
    for address in ("/", "/topics", "/topics/orders", "/topics/orders/0/1", "/groups", "/groups/shop"):
        page = client.get(address).text
        assert " style=" not in page
        assert "<style" not in page
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))
        assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page), "everything comes from here"


def test_a_page_of_another_site_that_points_its_name_here_is_turned_away(cluster: Invented) -> None:
    client = visitor(cluster)
    refused = client.get("/api/topics", headers={"Host": "evil.example"})
    assert refused.status_code == 421
    assert "orders" not in refused.text
    assert refused.headers["x-content-type-options"] == "nosniff"
    named = visitor(cluster, allowed_hosts={"kafka.example"})
    assert named.get("/api/topics", headers={"Host": "kafka.example:80"}).status_code == 200


# -- JSON ------------------------------------------------------------------------------------------------


def test_scripts_get_the_same_facts(client: Visitor) -> None:
    assert client.get("/health").json() == {
        "status": "UP",
        "bootstrapServers": "kafka.example:9092",
        "brokers": 3,
    }
    topics = client.get("/api/topics").json()["topics"]
    assert topics[1] == {
        "name": "orders",
        "partitions": 1,
        "records": 2,
        "internal": False,
        "offlinePartitions": 0,
    }
    topic = client.get("/api/topics/orders").json()
    assert (topic["records"], topic["partitions"][0]["endOffset"]) == (2, 2)
    group = client.get("/api/groups/shop").json()
    assert (group["lag"], group["members"][0]["assignment"]) == (7, [["orders", 0]])
    assert client.get("/api/groups").json()["groups"][1]["members"] is None


def test_records_as_json_lose_no_byte_and_page_by_next() -> None:
    records = [a_record(0), a_record(1, key=None, value=b"\xff", headers=(("h", None),)), a_record(2)]
    client = visitor(Invented(records))
    first = client.get("/api/topics/orders/records?limit=2").json()
    assert [r["offset"] for r in first["records"]] == [2, 1]
    assert first["records"][1] == {
        "topic": "orders",
        "partition": 0,
        "offset": 1,
        "timestamp": "2026-11-23T20:16:01.000Z",
        "key": None,
        "keyEncoding": "utf-8",
        "value": "/w==",
        "valueEncoding": "base64",
        "headers": [["h", None, "utf-8"]],
    }
    rest = client.get(f"/api/topics/orders/records?limit=2&before={first['next']}").json()
    assert [r["offset"] for r in rest["records"]] == [0]
    assert rest["next"] is None


# -- what goes wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/nothing", 404),
        ("/topics/nope", 404),
        ("/groups/nope", 404),
        ("/topics/orders/0/99", 404),
        ("/topics/orders/7/0", 404),
        ("/topics/orders?partition=7", 404),
        ("/static/nothing", 404),
        ("/static/..%2Fapp.py", 404),
        ("/topics/..%2Fx", 422),
        ("/topics/a%00b", 422),
        ("/topics/%FF", 422),
        ("/topics/" + "x" * 250, 422),
        ("/topics/orders?limit=1000000000", 422),
        ("/topics/orders?partition=-1", 422),
        ("/topics/orders?partition=2147483648", 422),
        ("/topics/orders?partition=0&offset=9223372036854775808", 422),
        ("/topics/orders/0/9223372036854775807", 422),
        ("/topics/orders/-1/0", 422),
        ("/topics/orders/x/0", 422),
        ("/topics/orders?before=zz", 400),
    ],
)
def test_what_cannot_be_shown_is_a_page_with_a_way_back(client: Visitor, address: str, status: int) -> None:
    answer = client.get(address)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert '<a href="/topics">All topics</a>' in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/api/nothing", 404),
        ("/api/topics/nope", 404),
        ("/api/topics/nope/records", 404),
        ("/api/groups/nope", 404),
        ("/api/topics/..%2Fx/records", 422),
        ("/api/topics/a%00b/records", 422),
        ("/api/topics/orders/records?limit=1000000000", 422),
        ("/api/topics/orders/records?before=%00", 400),
        ("/api/topics/orders/records?before=0:1,0:2", 400),
        ("/api/topics/orders/records?partition=-1", 422),
        ("/api/topics/orders/records?partition=2147483648", 422),
        ("/api/topics/orders/records?partition=0&offset=-1", 422),
        ("/api/topics/orders/records?partition=0&offset=9223372036854775808", 422),
        ("/api/topics/orders/records?key=%FF%00" + "x" * 300, 422),
        ("/api/topics/..%2Fx", 422),
        ("/api/topics/a%00b", 422),
    ],
)
def test_scripts_get_a_problem(client: Visitor, address: str, status: int) -> None:
    answer = client.get(address)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert answer.json()["title"]


def test_a_missing_topic_says_how_to_make_it(client: Visitor) -> None:
    assert "relance topics create nope --partitions 1" in client.get("/topics/nope").text
    assert client.get("/api/topics/nope").json()["command"] == "relance topics create nope --partitions 1"


def test_a_broker_that_is_away_is_a_503_with_its_address_and_a_retry(cluster: Invented) -> None:
    away = BrokerUnavailableError("no Kafka broker answered at kafka.example:9092 within 3 s")
    cluster.fails = away
    client = visitor(cluster)
    for address in ("/", "/topics", "/topics/orders", "/groups", "/api/topics", "/health"):
        answer = client.get(address)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "2"
        assert "kafka.example:9092" in answer.text
    assert client.get("/health").json()["status"] == "DOWN"
    assert "relance broker start" not in client.get("/topics").text
    away.command = "relance broker start"
    assert "relance broker start" in client.get("/topics").text
    cluster.fails = None
    assert client.get("/topics").status_code == 200


def test_a_refusal_and_a_mistake_of_our_own_are_told_without_a_stack(cluster: Invented) -> None:
    client = visitor(cluster)
    cluster.fails = RelanceError("not authorised")
    assert (client.get("/topics").status_code, client.get("/api/topics").status_code) == (502, 502)
    cluster.fails = ZeroDivisionError("secret")
    answer = client.get("/topics")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["content-security-policy"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_the_console_only_reads(client: Visitor, method: str) -> None:
    for address in ("/topics/orders", "/api/topics", "/groups/shop"):
        assert client.request(method, address).status_code == 405


# -- what the refresh needs ------------------------------------------------------------------------------


def test_an_unchanged_page_is_not_sent_twice(client: Visitor, cluster: Invented) -> None:
    first = client.get("/topics/orders")
    again = client.get("/topics/orders", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    cluster.records.append(a_record(2))
    assert client.get("/topics/orders", headers={"If-None-Match": first.headers["etag"]}).status_code == 200


def test_assets_are_served_from_here_and_may_be_kept(client: Visitor) -> None:
    page = client.get("/").text
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', page):
        answer = client.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert client.get("/favicon.ico").headers["content-type"] == "image/svg+xml"
