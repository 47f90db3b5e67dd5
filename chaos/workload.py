"""What is produced and what must become of it: the one place that feeders, members and the checker share.

An order says itself how it behaves, so that who checks needs nothing of what the members think.
"""

from __future__ import annotations

import random
from typing import Literal

import msgspec

SOURCE, RETRY, DEAD, OUT = "orders", "orders.retry", "orders.DLT", "orders.out"
PARTITIONS = {SOURCE: 6, RETRY: 3, DEAD: 3, OUT: 3}
GROUP = "chaos"
KEYS = 120

CONCURRENCY = 32
MAX_ATTEMPTS = 4
FIRST_DELAY, MULTIPLIER = 0.2, 2.0  # seconds; no jitter
IN_MEMORY = 1.0  # seconds; a longer wait goes to the retry topic
DRAIN = 8.0  # seconds

End = Literal["ok", "reject", "exhaust"]


class Order(msgspec.Struct):
    """One record's value."""

    id: str
    key: str
    work: float
    """Seconds that its handler takes."""
    fail: int = 0
    """How many attempts fail before it succeeds."""
    end: End = "ok"
    after: float | None = None
    """Its failures ask for this wait, in seconds, instead of the policy's."""


class Output(msgspec.Struct):
    """What each try of a handler sends before it succeeds or fails. Of one that failed nobody may see it."""

    id: str
    attempt: int


def result_of(output: Output, order: Order | None) -> str:
    """What an output that is there says of its order: "ok", unless the try that sent it had to fail."""
    return "failed try" if order is not None and output.attempt <= order.fail else "ok"


def delay_after(order: Order, attempt: int) -> float:
    """Seconds from the failure of `attempt` (from 1) to the next."""
    return FIRST_DELAY * MULTIPLIER ** (attempt - 1) if order.after is None else order.after


def draw(name: str, number: int, chance: random.Random) -> Order:
    """The order of a feeder with that number."""
    key = f"k-{chance.randrange(KEYS)}"
    order = Order(f"{name}-{number:06d}", key, round(chance.uniform(0.001, 0.02), 4))
    dice = chance.random()
    if dice < 0.06:
        order.fail = chance.randint(1, 2)
    elif dice < 0.08:
        order.end = "reject"
    elif dice < 0.09:
        order.end = "exhaust"
    elif dice < 0.12:
        # Keys of their own: whoever goes through the retry topic gives up its key's order.
        order.key, order.fail, order.after = f"d-{chance.randrange(KEYS)}", 1, 1.5
    return order
