"""Lab 3 as checks: retries observed, exhausted, ended by success; and who ignores the flag, if anyone does.

Promise: when a retry is missing, the cause tells apart a flag that is ignored, a retry topic that is not
written, and an order that nobody has finished.
"""

from __future__ import annotations

import re
from functools import partial

from stack.cluster import Reader, Seen
from stack.validate.dead_letters import checked_envelope, envelope_of
from stack.validate.lab import CheckFailedError, Lab, Order, keyed

FIRST_RETRY_WITHIN = 8.0
EXHAUSTED_WITHIN = 25.0  # the backoff of 1, 2 and 4 s with its jitter, and time to spare
RETRY_LINE = re.compile(r"\[RETRY\] Retry \d+/\d+ \(attempt \d+/\d+\) (P\d+:O\d+) in \d+ms")


def retries(lab: Lab) -> str:
    """With the flag on, an order for each member is accepted, fails, and goes to the retry topic."""
    retry_topic = lab.settings.retry_topic
    lab.watch(lab.settings.dlt_topic)
    seen = lab.watch(retry_topic)
    lab.switch(True)
    lab.failing = lab.send_to_each_member("RETRY")
    for order in lab.failing:
        if seen.wait_for(keyed(order.order_id), FIRST_RETRY_WITHIN) is None:
            raise CheckFailedError(_why_no_retry(lab, order))
    logged = lab.wait(lambda: _all_logged(lab, lab.failing), 3.0)
    if not logged:
        raise CheckFailedError(
            f"{retry_topic} holds the retries, but no log of the group has a [RETRY] line for them"
        )
    return f"{', '.join(f'{o.where} by {lab.spoken(o.owner)}' for o in lab.failing)}; {logged}"


def _all_logged(lab: Lab, orders: list[Order]) -> str:
    lines = [found for _, line in lab.lines_with("[RETRY]") if (found := RETRY_LINE.search(line))]
    if {order.where for order in orders} <= {line[1] for line in lines}:
        return next(line[0] for line in lines if line[1] == orders[0].where)
    return ""


def _why_no_retry(lab: Lab, order: Order) -> str:
    retry_topic = lab.settings.retry_topic
    owner = lab.spoken(order.owner)
    handled = _handled_by(lab, order.order_id)
    if handled:
        return (
            f"the {handled} ignores the simulation flag: it is on, and order {order.order_id} "
            f"({order.where}) was handled at its first try"
        )
    dead = lab.dead_letter_of(order.order_id, 1.0)
    if dead is not None:
        count = envelope_of(dead).get("retryCount")
        return (
            f"{retry_topic} is never written: order {order.order_id} ({order.where}) failed on the {owner} "
            f"and is in {dead.topic} with retryCount {count}, without a record in {retry_topic}"
        )
    if lab.lines_with("[RETRY]", f"{order.where} "):
        return (
            f"{retry_topic} is never written: the {owner} logged a retry of {order.where}, but its record "
            f"went elsewhere (KAFKA_RETRY_TOPIC of that service?)"
        )
    past = lab.committed().get(order.partition, 0) > order.offset
    finished = "is finished" if past else "is not finished"
    return (
        f"{retry_topic} is never written: order {order.order_id} ({order.where}) {finished}, "
        f"it belongs to the {owner}{lab.health_of(order.owner)}"
    )


def _handled_by(lab: Lab, order_id: str) -> str:
    """Which member's log says that it handled the order; empty if none does."""
    found = lab.wait(lambda: lab.lines_with(f"Order handled: {order_id} "), 0.5)
    return lab.spoken(found[0][0]) if found else ""


def exhausted(lab: Lab) -> str:
    """The orders of the check before end in the DLT, after all their retries."""
    wanted = lab.settings.max_retries
    lab.say(f"  … waiting for {wanted} retries with their backoff")
    retried = lab.watch(lab.settings.retry_topic)
    for order in lab.failing:
        dead = lab.dead_letter_of(order.order_id, EXHAUSTED_WITHIN)
        if dead is None:
            handled = _handled_by(lab, order.order_id)
            if handled:
                raise CheckFailedError(
                    f"the {handled} ignores the simulation flag: it is on, and order {order.order_id} was "
                    f"handled at a retry"
                )
            raise CheckFailedError(
                f"order {order.order_id} ({order.where}) was retried, but did not get to "
                f"{lab.settings.dlt_topic}{''.join(lab.health_of(member) for member in lab.members)}"
            )
        envelope = checked_envelope(dead)
        text = f"{envelope.get('errorClass', '')} {envelope['errorMessage']}"
        if "MaxRetriesExceeded" not in text or envelope["retryCount"] != wanted:
            raise CheckFailedError(
                f"order {order.order_id} is dead-lettered with retryCount {envelope['retryCount']} and "
                f"{text.strip()!r}, not with {wanted} and MaxRetriesExceededError"
            )
        if (envelope["originalPartition"], envelope["originalOffset"]) != (order.partition, order.offset):
            raise CheckFailedError(
                f"the dead letter of {order.where} has lost its true place over the retries"
            )
        if not lab.wait(partial(_enough_retries, retried, order, wanted), 3.0):
            raise CheckFailedError(
                f"order {order.order_id} has fewer than {wanted} records in {lab.settings.retry_topic}"
            )
    then = f"MaxRetriesExceededError, retryCount {wanted}"
    each = f"{wanted} records each in {lab.settings.retry_topic}"
    return f"{each}, then {lab.settings.dlt_topic}: {then}"


def _enough_retries(retried: Reader, order: Order, wanted: int) -> bool:
    retried.wait_for(lambda _: False, 0.1)  # take in what has come meanwhile
    return sum(keyed(order.order_id)(record) for record in retried.seen) >= wanted


def recovers(lab: Lab) -> str:
    """An order that fails while the flag is on and is retried after it went off: handled."""
    topic, group = lab.settings.retry_topic, f"{lab.settings.group}.retry"
    seen = lab.watch(topic)
    order = lab.send("RECOVERS")
    key = order.order_id.encode()
    first = seen.wait_for(keyed(order.order_id), FIRST_RETRY_WITHIN)
    if first is None:
        raise CheckFailedError(_why_no_retry(lab, order))
    lab.switch(False)

    def finished() -> Seen | None:
        seen.wait_for(lambda _: False, 0.1)
        last = [record for record in seen.seen if record.key == key][-1]
        done = lab.cluster.committed(group, topic).get(last.partition, 0) > last.offset
        return last if done else None

    last = lab.wait(finished, 20.0)
    if last is None:
        raise CheckFailedError(
            f"the retry of order {order.order_id} ({order.where}) is not finished within 20 s"
        )
    dead = lab.dead_letter_of(order.order_id, 0.5)
    if dead is not None:
        raise CheckFailedError(
            f"order {order.order_id} was dead-lettered although the flag went off in time: "
            f"{envelope_of(dead).get('errorMessage')}"
        )
    handled = _handled_by(lab, order.order_id)
    if not handled:
        raise CheckFailedError(
            f"the retry of order {order.order_id} is finished, but no log says that it was handled"
        )
    return f"order {order.order_id} failed, flag off, handled at a retry by the {handled}"
