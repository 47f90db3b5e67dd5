"""Members that come, go and die while orders flow: each order is handled, and a clean stop repeats none."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

from stack.cluster import Group
from stack.up import shared_out
from stack_under_test import Stack

from stack import supervisor, web
from waiting import wait_until

MEMBERS = ("order-api", "order-consumer-1", "order-consumer-2")


class Orders:
    """Sends orders without a pause, in a thread, until it is left; remembers the accepted ones."""

    def __init__(self, stack: Stack, word: str) -> None:
        self.stack, self.word = stack, f"{word}-{time.time_ns()}"
        self.accepted: dict[str, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="orders")

    def _send(self) -> None:
        url = f"http://localhost:{self.stack.settings.api_port}/api/v1/orders"
        while not self._stop.is_set():
            order_id = f"{self.word}-{len(self.accepted)}"
            answer = web.post(url, {"orderId": order_id, "amount": 1})
            if answer.status == 200:
                self.accepted[order_id] = (answer.json["partition"], answer.json["offset"])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(20)

    def wait_sent(self, more: int) -> None:
        """Until `more` orders were accepted from now on."""
        wanted = len(self.accepted) + more
        wait_until(lambda: len(self.accepted) >= wanted, 20, "more orders to be accepted")

    def handled(self) -> Counter[str]:
        """How often each accepted order was handled, by the logs of all members."""
        counts: Counter[str] = Counter()
        for name in MEMBERS:
            path = supervisor.log_path(self.stack.settings, name)
            if path.exists():
                for line in path.read_text(errors="replace").splitlines():
                    if "Order handled: " in line:
                        counts[line.split("Order handled: ")[1].split()[0]] += 1
        return Counter({order_id: counts[order_id] for order_id in self.accepted})

    def wait_all_handled(self) -> Counter[str]:
        def missing() -> list[str]:
            return [order_id for order_id, count in self.handled().items() if not count]

        wait_until(lambda: not missing(), 30, lambda: f"orders to be handled: {missing()[:3]}, …")
        return self.handled()


def wait_members(stack: Stack, members: int, seconds: float) -> float:
    """Seconds until the group has just these members, with all partitions shared out."""
    since = time.monotonic()

    def group() -> Group:
        return stack.cluster.group(stack.settings.group, "orders")

    def settled() -> bool:
        found = group()
        return len(found.members) == members and shared_out(found, members, 6)

    wait_until(settled, seconds, lambda: f"{members} members that share out the partitions: {group()}")
    return time.monotonic() - since


def test_scaling_to_2_and_back_under_load_handles_each_order_exactly_once(stack: Stack) -> None:
    with Orders(stack, "SCALE") as orders:
        orders.wait_sent(50)
        assert "partitions 2/2/2" in stack.up("--scale", "consumer=2")
        orders.wait_sent(50)
        assert "partitions 3/3" in stack.up("--scale", "consumer=1")
        orders.wait_sent(50)
    counts = orders.wait_all_handled()
    repeated = {order_id: count for order_id, count in counts.items() if count != 1}
    assert repeated == {}, f"of {len(counts)} orders these were repeated"


def test_kill_9_of_the_second_consumer_under_load_loses_nothing(stack: Stack) -> None:
    with Orders(stack, "KILL") as orders:
        orders.wait_sent(50)
        os.kill(stack.find("order-consumer-1").who.pid, signal.SIGKILL)
        wait_members(stack, 1, 15.0)  # the session timeout (10 s), and a rebalance
        orders.wait_sent(20)
    orders.wait_all_handled()


def test_sigterm_ends_the_second_consumer_within_2_seconds_and_frees_its_partitions(stack: Stack) -> None:
    running = stack.find("order-consumer-1")
    with Orders(stack, "TERM") as orders:
        orders.wait_sent(50)
        os.kill(running.who.pid, signal.SIGTERM)
        wait_until(lambda: not running.alive, 2.0, "its end")
        assert wait_members(stack, 1, 12.0) < 12
        orders.wait_sent(20)
    counts = orders.wait_all_handled()
    assert set(counts.values()) == {1}
