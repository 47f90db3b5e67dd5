"""An outage of a real service behind a handler, on a real broker: nothing is lost, spent or out of order."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from members import Group, Member

from relance import App, CircuitBreaker, RetryPolicy, Settings, TransientError
from relance.dead_letters.envelope import decode
from relance.kafka.admin import Admin
from relance.kafka.browse import Browser
from waiting import wait_until

KEYS = 10
BREAKER = {"window": 10, "minimum_calls": 5, "open_for": 1.0, "probes": 2}


class Service:
    """An HTTP service on a port of its own; `down` answers 503, `delay` is in seconds, `poison` are ids."""

    def __init__(self) -> None:
        self.down = False
        self.delay = 0.0
        self.poison: set[str] = set()
        self.asked = 0
        service = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                service.asked += 1
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                service.awake.wait(service.delay)
                self.send_response(503 if service.down or body in service.poison else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing: the tests read what the consumer says."""

        self.awake = threading.Event()  # set at the end, so that no slow answer holds the test
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def close(self) -> None:
        self.awake.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


@pytest.fixture
def make_group(
    tmp_path: Path, bootstrap: str, make_topic: Callable[..., str], service: Service
) -> Iterator[Callable[..., Group]]:
    made: list[Group] = []

    def make(partitions: int = 3, *, retry: bool = False, **config: Any) -> Group:
        topic = make_topic("calls", partitions)
        names = {
            "bootstrap": bootstrap,
            "topic": topic,
            "group": f"group-{topic}",
            "dead_letter_topic": make_topic("dlt"),
            "retry_topic": make_topic("retry") if retry else None,
            "service": service.url,
            "breaker": BREAKER,
            # So long that no record comes to a second attempt before the breaker has seen five of them fail.
            "delay": 3.0,
        }
        group = Group(tmp_path, **{**names, **config})
        made.append(group)
        return group

    yield make
    for group in made:
        group.close()


@pytest.fixture
def send(bootstrap: str) -> Callable[[Group, Iterable[int]], None]:
    """Write records `0`, `1`, … in turn to `KEYS` keys."""
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})

    def write(group: Group, numbers: Iterable[int]) -> None:
        for i in numbers:
            producer.produce(group.config["topic"], json.dumps({"id": str(i)}), key=f"key-{i % KEYS}")
        assert producer.flush(10) == 0

    return write


def ids(numbers: Iterable[int]) -> set[str]:
    return {str(i) for i in numbers}


def attempts(group: Group) -> set[int]:
    return {e["attempt"] for e in group.told("start")}


def changes(member: Member, to: str) -> int:
    """How often the log says that a breaker is `to` now."""
    return sum(
        " relance.breaker circuit breaker " in line and f" is {to}" in line for line in member.log_lines
    )


def wait_for_change(member: Member, to: str, times: int = 1, timeout: float = 15.0) -> None:
    wait_until(lambda: changes(member, to) >= times, timeout, lambda: f"{to} {times} times\n{member.log}")


def start(group: Group, **more: Any) -> Member:
    member = group.start(**more)
    partitions = len(Admin(group.config["bootstrap"]).watermarks(group.config["topic"]))
    group.settle(member, partitions=partitions)
    return member


def dead_letters(group: Group) -> int:
    return Browser(group.config["bootstrap"]).count(group.config["dead_letter_topic"])


def assert_in_order(group: Group) -> None:
    by_key = defaultdict(list)
    for name in map(int, group.handled()):
        by_key[name % KEYS].append(name)
    for names in by_key.values():
        assert names == sorted(names)


def assert_once(group: Group, numbers: Iterable[int]) -> None:
    assert sorted(map(int, group.handled())) == sorted(numbers)


@pytest.mark.parametrize(
    "how",
    [{"sync": True}, {"sync": True, "concurrency": 4}, {"concurrency": 4}],
    ids=["inline", "threads", "loop"],
)
def test_an_outage_costs_no_attempt_dead_letters_nothing_and_keeps_the_order_of_each_key(
    make_group: Callable[..., Group], send: Callable[..., None], service: Service, how: dict[str, Any]
) -> None:
    group = make_group(max_attempts=2, **how)
    send(group, range(20))
    member = start(group)
    group.wait_handled(ids(range(20)))
    service.down = True
    send(group, range(20, 80))
    wait_for_change(member, "open", times=3)  # two trials in between have failed
    asked = service.asked
    wait_for_change(member, "half-open", times=3)
    assert service.asked - asked <= BREAKER["probes"]
    # Not in the middle of a trial: a probe that fails there while another succeeds costs an attempt.
    wait_for_change(member, "open", times=4)
    service.down = False
    group.wait_handled(ids(range(80)))
    wait_for_change(member, "closed")
    assert_once(group, range(80))
    assert_in_order(group)
    assert attempts(group) == {1}
    assert member.stop() == 0
    assert (dead_letters(group), member.told("lost")) == (0, [])
    opened = member.told("opened")
    assert len(opened) == changes(member, "open")
    assert opened[0]["last_error"].startswith("TransientError: HTTP Error 503")


def test_a_consumer_whose_breaker_is_open_for_longer_than_its_session_stays_in_the_group(
    make_group: Callable[..., Group], send: Callable[..., None], service: Service
) -> None:
    group = make_group(breaker={**BREAKER, "open_for": 8.0})  # the session's timeout is 6 s
    service.down = True
    send(group, range(30))
    member = start(group)
    wait_for_change(member, "open")
    service.down = False
    wait_for_change(member, "half-open")
    assert len(member.told("assigned")) == 1
    assert member.told("revoked") == member.told("lost") == []
    group.wait_handled(ids(range(30)))
    assert_in_order(group)
    assert attempts(group) == {1}


def test_a_poison_record_among_good_ones_is_dead_lettered_and_opens_nothing(
    make_group: Callable[..., Group], send: Callable[..., None], service: Service
) -> None:
    group = make_group(max_attempts=3, delay=0.1, concurrency=4)
    service.poison = {"17"}
    send(group, range(60))
    member = start(group)
    group.wait_handled(ids(range(60)) - {"17"})
    wait_until(lambda: dead_letters(group) == 1, 15.0, lambda: member.log)
    [letter] = Browser(group.config["bootstrap"]).latest(group.config["dead_letter_topic"], 5)
    assert json.loads(decode(letter.value or b"").original_value or "") == {"id": "17"}
    assert [e["attempt"] for e in group.told("start") if e["id"] == "17"] == [1, 2, 3]
    assert changes(member, "open") == 0


def test_poison_that_came_alone_keeps_no_breaker_open_for_the_healthy_records_that_follow(
    make_group: Callable[..., Group], send: Callable[..., None], service: Service
) -> None:
    group = make_group(max_attempts=3, delay=0.1, concurrency=4, breaker={**BREAKER, "open_for": 0.5})
    poison = range(60, 62)
    service.poison = ids(poison)
    send(group, poison)
    member = start(group)
    wait_for_change(member, "open", times=3)
    assert dead_letters(group) == 0
    sent = list(range(60))
    send(group, sent)

    def both_are_given_up() -> bool:
        """Others keep coming on other keys: poison that is all there is could not be told from an outage."""
        more = [i for i in range(max(60, sent[-1]) + 10, max(60, sent[-1]) + 20) if i % KEYS > 1]
        send(group, more)
        sent.extend(more)
        return dead_letters(group) == 2

    wait_until(both_are_given_up, 30.0, lambda: member.log)
    group.wait_handled(ids(sent))
    letters = [
        decode(r.value or b"")
        for r in Browser(group.config["bootstrap"]).latest(group.config["dead_letter_topic"], 5)
    ]
    assert {letter.original_value for letter in letters} == {json.dumps({"id": name}) for name in ids(poison)}
    assert {letter.retry_count for letter in letters} == {2}
    assert_once(group, sent)
    assert_in_order(group)


def test_a_service_that_is_only_slow_opens_it_too(
    make_group: Callable[..., Group], send: Callable[..., None], service: Service
) -> None:
    breaker = {**BREAKER, "slow_call_duration": 0.2, "slow_call_rate": 0.8}
    group = make_group(sync=True, concurrency=4, breaker=breaker)
    service.delay = 0.3
    send(group, range(40))
    member = start(group)
    wait_until(lambda: member.told("opened"), 15.0, lambda: member.log)
    assert "took over 0.2s" in member.told("opened")[0]["reason"]
    service.delay = 0.0
    group.wait_handled(ids(range(40)))
    assert_once(group, range(40))
    assert dead_letters(group) == 0


def test_a_service_that_hangs_opens_it_by_the_client_s_own_deadline(
    make_group: Callable[..., Group], send: Callable[..., None], service: Service
) -> None:
    group = make_group(concurrency=8, patience=0.3)
    service.delay = 60.0
    send(group, range(40))
    member = start(group)
    wait_for_change(member, "open", times=2)
    service.delay = 0.0
    group.wait_handled(ids(range(40)))
    assert_in_order(group)
    assert (dead_letters(group), attempts(group)) == (0, {1})


def test_sigterm_while_it_is_open_ends_at_once_and_the_next_process_finds_no_attempt_used(
    make_group: Callable[..., Group], send: Callable[..., None], service: Service
) -> None:
    group = make_group(breaker={**BREAKER, "open_for": 600.0}, max_attempts=2)
    service.down = True
    send(group, range(30))
    member = start(group)
    wait_for_change(member, "open")
    member.signal(15)
    assert member.ended(timeout=6.0) == 0  # the drain's deadline is 8 s
    service.down = False
    start(group)
    group.wait_handled(ids(range(30)))
    assert_once(group, range(30))
    assert attempts(group) == {1}
    assert dead_letters(group) == 0


def test_partitions_move_while_it_is_open(
    make_group: Callable[..., Group], send: Callable[..., None], service: Service
) -> None:
    group = make_group(4, max_attempts=2)
    service.down = True
    send(group, range(60))
    first = start(group)
    wait_for_change(first, "open")
    second = group.start()
    group.settle(first, second, partitions=4)
    wait_for_change(second, "open")  # each process learns for itself
    service.down = False
    group.wait_handled(ids(range(60)))
    assert_once(group, range(60))
    assert_in_order(group)
    assert dead_letters(group) == 0


def test_retry_records_that_fall_due_in_the_outage_wait_for_its_end_and_have_lost_no_attempt(
    make_group: Callable[..., Group], send: Callable[..., None], service: Service
) -> None:
    group = make_group(retry=True, max_in_memory_wait=0.0, max_attempts=2, delay=1.0)
    service.down = True
    send(group, range(40))
    member = start(group)
    # Four trials: long after those that failed before it opened have fallen due.
    wait_for_change(member, "open", times=5)
    assert dead_letters(group) == 0
    service.down = False
    group.wait_handled(ids(range(40)))
    assert_once(group, range(40))
    assert (dead_letters(group), attempts(group)) == (0, {1})


def test_two_handlers_share_a_breaker_by_its_name_and_health_stays_up_and_tells_it(
    bootstrap: str, make_topic: Callable[..., str]
) -> None:
    topics = make_topic("bank"), make_topic("shop")
    app = App("g-shared", settings=Settings(bootstrap_servers=bootstrap, start="earliest"))
    bank = CircuitBreaker(name="bank", window=10, minimum_calls=5, open_for=4.0)
    down = threading.Event()
    down.set()
    handled: list[int] = []
    asked: list[str] = []
    retry = RetryPolicy.exponential(max_attempts=3)

    @app.consumer(topics[0], ordering="key", retry=retry, breaker=bank)
    async def pay(value: dict[str, int]) -> None:
        asked.append("pay")
        if down.is_set():
            raise TransientError("503")
        handled.append(value["id"])

    @app.consumer(topics[1], ordering="key", retry=retry, breaker=bank)
    def refund(value: dict[str, int]) -> None:
        asked.append("refund")
        handled.append(value["id"])

    async def until(condition: Callable[[], Any]) -> None:
        await asyncio.to_thread(wait_until, condition, 15.0, lambda: f"{app.stats()} {app.health()}")

    async def main() -> None:
        async with app.running():
            for i in range(10):
                await app.send(topics[0], {"id": i}, key=str(i))
            await until(lambda: app.stats().circuit_breakers[0].state == "open")
            seen = len(asked)
            await app.send(topics[1], {"id": 100}, key="x")
            health = app.health()
            told = json.loads(json.dumps(health.details))["circuit_breakers"]["bank"]
            assert (health.status, health.reasons) == ("UP", [])
            assert (told["state"], told["reason"]) == ("open", "5 of 5 calls failed (limit 0.5)")
            assert asked[seen:] == []
            down.clear()
            await until(lambda: len(handled) == 11)
            [found] = app.stats().circuit_breakers
            assert (found.name, found.state, found.times_opened) == ("bank", "closed", 1)
            assert found.opened is not None
            assert found.opened.last_error == "TransientError: 503"
            assert app.stats().dead_lettered == 0

    asyncio.run(main())
    assert sorted(handled) == [*range(10), 100]
