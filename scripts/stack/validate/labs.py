"""Labs 1, 2, 4 and 5 of the course as checks: each does what its lab does, and looks in Kafka for the result.

Promise: a check believes the broker, not the service: it reads records, committed offsets, members.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from stack import web
from stack.services import Service, order_consumer
from stack.up import Launch, quiet
from stack.validate.dead_letters import checked_envelope, envelope_of
from stack.validate.lab import CheckFailedError, Lab, Order, keyed, whole

HANDLED_WITHIN = 15.0
DEAD_WITHIN = 12.0


# -- lab 1 ---------------------------------------------------------------------------------------------


def valid_orders(lab: Lab) -> str:
    """Five orders and one for each member: accepted, in the topic, finished by the group, counted."""
    lab.switch(False)
    before = whole(_stats(lab), "success")
    orders_seen = lab.watch(lab.settings.topic)
    orders = [lab.send("VALID") for _ in range(5)] + lab.send_to_each_member("VALID")
    for order in orders:
        found = orders_seen.wait_for(keyed(order.order_id), 5.0)
        if found is None or (found.partition, found.offset) != (order.partition, order.offset):
            raise CheckFailedError(
                f"order {order.order_id} was accepted as {order.where}, but topic {lab.settings.topic} "
                f"holds it {'nowhere' if found is None else f'at P{found.partition}:O{found.offset}'}"
            )
    lab.wait_handled(orders, HANDLED_WITHIN)
    enough = lab.wait(lambda: whole(_stats(lab), "success") >= before + len(orders), 5.0)
    if not enough:
        raise CheckFailedError(
            f"{len(orders)} orders were finished, but the group's success counter went from {before} to "
            f"{whole(_stats(lab), 'success')}: {_who_failed(lab, orders)}"
        )
    return f"{len(orders)} accepted, in the topic, finished by the group; success is {before}+{len(orders)}"


def _who_failed(lab: Lab, orders: list[Order]) -> str:
    for order in orders:
        if (dead := lab.dead_letter_of(order.order_id, 0.3)) is not None:
            return f"valid order {order.order_id} is in {dead.topic}: {envelope_of(dead).get('errorMessage')}"
    return "GET /api/v1/stats does not count the whole group"


# -- lab 2 ---------------------------------------------------------------------------------------------


def invalid_order(lab: Lab) -> str:
    """The negative amount: refused with 400, and dead-lettered with all nine fields."""
    dlt = lab.settings.dlt_topic
    lab.watch(dlt)
    order_id = lab.new_id("INVALID")
    body = {"orderId": order_id, "amount": -50, "status": "PENDING"}
    answer = web.post(f"{lab.api.url}/api/v1/orders", body)
    if answer.status >= 500 or not answer.status:
        raise CheckFailedError(
            f"the write to {dlt} fails: an invalid order should be sent there, but: {answer}"
        )
    if answer.status != 400 or answer.json.get("status") != "REJECTED":
        raise CheckFailedError(f"an order of amount -50 was not rejected with 400: {answer}")
    dead = lab.dead_letter_of(order_id, DEAD_WITHIN)
    if dead is None:
        raise CheckFailedError(
            f"order {order_id} was rejected as {answer.json.get('action')!r}, but {dlt} has no such key"
        )
    envelope = checked_envelope(dead)
    if envelope["originalPartition"] is not None or envelope["originalOffset"] is not None:
        raise CheckFailedError(
            f"the dead letter of {order_id}, which was never in a topic, claims an original offset"
        )
    if json.loads(envelope["originalValue"] or "null") != body:
        raise CheckFailedError(
            f"the dead letter of {order_id} has another value: {envelope['originalValue']}"
        )
    return f"400 REJECTED, in {dlt} at P{dead.partition}:O{dead.offset}: {envelope['errorMessage']}"


def bad_records(lab: Lab) -> str:
    """Records that no API has seen, one for each member, who must dead-letter it itself."""
    lab.watch(lab.settings.dlt_topic)
    partitions = {member.name: partition for partition, member in sorted(lab.owners.items(), reverse=True)}
    bad = (b'{"orderId": "', b"\xff\xfe not UTF-8", b'{"orderId": "X", "amount": -1}', b"")
    written = []
    for number, (_, partition) in enumerate(sorted(partitions.items())):
        key, value = lab.new_id("BAD"), bad[number % len(bad)]
        at = lab.cluster.produce(lab.settings.topic, key.encode(), value, partition)
        written.append((key, *at))
    shown = []
    for key, partition, offset in written:
        owner = lab.owners[partition]
        dead = lab.dead_letter_of(key, DEAD_WITHIN)
        if dead is None:
            raise CheckFailedError(
                f"the write to {lab.settings.dlt_topic} fails: the {lab.spoken(owner)} did not dead-letter "
                f"bad record P{partition}:O{offset} within {DEAD_WITHIN:.0f} s{lab.health_of(owner)}"
            )
        envelope = checked_envelope(dead)
        told = tuple(
            envelope[name] for name in ("originalPartition", "originalOffset", "originalKey", "retryCount")
        )
        if told != (partition, offset, key, 0):
            raise CheckFailedError(
                f"the dead letter of P{partition}:O{offset} says {told}, not its true place and key"
            )
        shown.append(f"P{partition}:O{offset} by {lab.spoken(owner)}")
    return ", ".join(shown)


# -- lab 4 ---------------------------------------------------------------------------------------------


def rebalancing(lab: Lab) -> str:
    """One more consumer and back, while orders flow: partitions move both times, nothing is lost."""
    settings, before = lab.settings, lab.consumers
    shares = [_shares(lab)]
    lab.say(f"  … one more consumer: {before} → {before + 1} → {before}")
    launch = Launch(settings, say=quiet)
    newcomer = order_consumer(settings, before + 1)
    owned = _partitions_of(lab)
    with _orders_meanwhile(lab) as orders:
        launch.scale(before + 1)
    shares.append(_shares(lab))
    count = web.get(f"{newcomer.url}/api/v1/partitions").json.get("count")
    if not isinstance(count, int) or (count < 1 and before + 2 <= settings.topics[0].partitions):
        raise CheckFailedError(f"the new consumer on {newcomer.port} got no partition: count is {count}")
    lab.learn_owners()
    # A cooperative rebalance moves as little as it can: a member that keeps all it has may log nothing.
    moved = [name for name, partitions in _partitions_of(lab).items() if partitions != owned.get(name)]
    with _orders_meanwhile(lab) as more:
        launch.scale(before)
    orders += more
    shares.append(_shares(lab))
    lab.learn_owners()
    lab.wait_handled(orders, HANDLED_WITHIN)
    _check_each_handled_once(lab, orders, newcomer)
    for name in moved:
        if not lab.wait(partial(_rebalance_lines, lab, name), 5.0):
            raise CheckFailedError(f"the log of {name} has no [REBALANCE] line although its partitions moved")
    lines = sum(len(_rebalance_lines(lab, name)) for name in moved)
    path = " → ".join(shares)
    return f"partitions {path}, {lines} [REBALANCE] lines, {len(orders)} orders meanwhile, each handled once"


@contextlib.contextmanager
def _orders_meanwhile(lab: Lab) -> Iterator[list[Order]]:
    """Send ten orders a second while the block runs, and one after it; then the list holds all of them."""
    orders: list[Order] = []
    done = threading.Event()

    def send() -> None:
        while not done.wait(0.1):
            orders.append(lab.send("REBAL"))
        orders.append(lab.send("REBAL"))

    with ThreadPoolExecutor(1) as pool:
        try:  # from here on: an interrupt may come at any place, and the thread must hear of it
            sending = pool.submit(send)
            yield orders
        finally:
            done.set()
        sending.result()


def _partitions_of(lab: Lab) -> dict[str, set[int]]:
    names = {member.name for member in lab.owners.values()}
    return {name: {p for p, member in lab.owners.items() if member.name == name} for name in names}


def _check_each_handled_once(lab: Lab, orders: list[Order], newcomer: Service) -> None:
    """The logs tell who handled what; the newcomer, who has gone by now, did its share, too."""
    names = [*(member.name for member in lab.members), newcomer.name]

    def times() -> dict[str, int]:
        lines = "\n".join(line for name in names for line in lab.new_lines(name))
        return {order.order_id: lines.count(f"Order handled: {order.order_id} ") for order in orders}

    lab.wait(lambda: all(times().values()), 3.0)
    for order_id, count in times().items():
        if count != 1:
            how = f"{count} times" if count else "by nobody, or it was dead-lettered"
            raise CheckFailedError(f"order {order_id}, sent while partitions moved, was handled {how}")


def _shares(lab: Lab) -> str:
    return "/".join(map(str, lab.cluster.group(lab.settings.group, lab.settings.topic).shares))


def _rebalance_lines(lab: Lab, name: str) -> list[str]:
    return [line for line in lab.new_lines(name) if "[REBALANCE]" in line]


# -- lab 5 ---------------------------------------------------------------------------------------------


def monitoring(lab: Lab) -> str:
    """The three calls of the lab; the DLT's count must be the topic's own."""
    stats = _stats(lab)
    for name in ("success", "errors", "dlt"):
        if whole(stats, name) < 0:
            raise CheckFailedError(f"GET /api/v1/stats has no counter {name!r}: {json.dumps(stats)[:200]}")

    def counted() -> tuple[int, int] | None:
        told = whole(web.get(f"{lab.api.url}/api/v1/dlt/count").json, "dltCount")
        true = lab.cluster.count(lab.settings.dlt_topic)
        return (told, true) if told == true else None

    if lab.wait(counted, 5.0) is None:
        raise CheckFailedError(
            f"GET /api/v1/dlt/count says {web.get(f'{lab.api.url}/api/v1/dlt/count')}, "
            f"topic {lab.settings.dlt_topic} holds {lab.cluster.count(lab.settings.dlt_topic)} records"
        )
    health = web.get(f"{lab.api.url}/health")
    if not health.ok or health.json.get("status") != "UP":
        raise CheckFailedError(f"GET /health on {lab.api.port}: {health}")
    counters = ", ".join(f"{name} {stats[name]}" for name in ("success", "errors", "dlt"))
    return f"{counters}; {lab.cluster.count(lab.settings.dlt_topic)} in the DLT; health UP"


# -- shared --------------------------------------------------------------------------------------------


def _stats(lab: Lab) -> dict[str, Any]:
    answer = web.get(f"{lab.api.url}/api/v1/stats")
    if not answer.ok:
        raise CheckFailedError(f"GET /api/v1/stats fails: {answer}")
    return answer.json
