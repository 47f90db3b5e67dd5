"""What every check of the list needs: the services, the broker's own view, the logs, bounded waits.

Promise: a check sees only what happened since the list began; what older runs left behind is ignored.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from stack import services, supervisor, web
from stack.cluster import Cluster, Reader, Seen
from stack.services import Service
from stack.settings import Settings
from stack.up import owners, wanted_consumers

T = TypeVar("T")


class CheckFailedError(Exception):
    """A checkpoint isn't met; the text is the cause, in the words of someone who wants to mend it."""


@dataclass(frozen=True)
class Order:
    """An order that the API accepted, where it lies, and who owns that partition."""

    order_id: str
    partition: int
    offset: int
    owner: Service

    @property
    def where(self) -> str:
        return f"P{self.partition}:O{self.offset}"


@dataclass
class Lab:
    """One run of the list."""

    settings: Settings
    cluster: Cluster
    say: Callable[[str], None]
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    owners: dict[int, Service] = field(default_factory=dict)
    failing: list[Order] = field(default_factory=list)
    """The orders of the retry check, which the next check follows to their end."""
    _log_starts: dict[str, int] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _readers: dict[str, Reader] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        for path in self.settings.logs_dir.glob("*.log"):
            self._log_starts[path.stem] = path.stat().st_size

    def close(self) -> None:
        self._stack.close()

    # -- services -------------------------------------------------------------------------------------

    @property
    def consumers(self) -> int:
        """How many second consumers there should be."""
        return wanted_consumers(self.settings)

    @property
    def api(self) -> Service:
        return services.order_api(self.settings)

    @property
    def members(self) -> list[Service]:
        """The services that should be in the group."""
        everyone = services.all_services(self.settings, self.consumers)
        return [service for service in everyone if service.in_group]

    def spoken(self, service: Service) -> str:
        """`order consumer on 18083`: how the course's reader knows it."""
        return f"{service.title.rstrip(' 0123456789')} on {service.port}"

    def learn_owners(self) -> None:
        """Ask each member which partitions it owns now."""
        self.owners = owners(self.members)

    def health_of(self, service: Service) -> str:
        """What its health says, for the end of a cause; empty if all is well there."""
        health = web.get(f"{service.url}/health")
        return "" if health.ok else f"; the {self.spoken(service)} says: {health}"

    # -- the flag -------------------------------------------------------------------------------------

    def set_flag(self, enabled: bool) -> web.Answer:
        word = "true" if enabled else "false"
        return web.post(f"{self.api.url}/api/v1/config/simulate-transient-error?enabled={word}")

    def switch(self, enabled: bool) -> None:
        answer = self.set_flag(enabled)
        if not answer.ok or answer.json.get("simulateTransientError") is not enabled:
            raise CheckFailedError(
                f"the simulation flag can't be switched {'on' if enabled else 'off'}: {answer}"
            )

    # -- orders ---------------------------------------------------------------------------------------

    def new_id(self, word: str) -> str:
        self._count += 1
        return f"CHECK-{self.run_id}-{word}-{self._count}"

    def send(self, word: str) -> Order:
        """A valid order by the API; it must be accepted, with the place of its record."""
        order_id = self.new_id(word)
        value = {"orderId": order_id, "amount": 100 + self._count, "status": "PENDING"}
        answer = web.post(f"{self.api.url}/api/v1/orders", value)
        told = answer.json
        if answer.status != 200 or told.get("status") != "ACCEPTED":
            raise CheckFailedError(f"a valid order was not accepted: {answer}")
        partition, offset = told.get("partition"), told.get("offset")
        if not isinstance(partition, int) or not isinstance(offset, int):
            raise CheckFailedError(f"the answer to an order doesn't say where its record is: {answer}")
        return Order(order_id, partition, offset, self.owners.get(partition, self.api))

    def send_to_each_member(self, word: str) -> list[Order]:
        """Orders until every member owns one: which member gets it depends on the key's hash."""
        found: dict[str, Order] = {}
        owning = {member.name for member in self.owners.values()}
        for _ in range(80):
            order = self.send(word)
            found.setdefault(order.owner.name, order)
            if owning <= found.keys():
                return [found[name] for name in sorted(found)]
        missing = ", ".join(sorted(owning - found.keys()))
        raise CheckFailedError(f"of 80 orders with different ids none got to a partition of {missing}")

    def wait_handled(self, orders: list[Order], seconds: float) -> None:
        """Until the group's committed offsets are past these orders."""

        def all_past() -> bool:
            committed = self.committed()
            return all(committed.get(order.partition, 0) > order.offset for order in orders)

        if not self.wait(all_past, seconds):
            committed = self.committed()
            late = next(order for order in orders if committed.get(order.partition, 0) <= order.offset)
            raise CheckFailedError(
                f"order {late.order_id} ({late.where}) was accepted but not finished within {seconds:.0f} s: "
                f"{self.settings.topic}-{late.partition} belongs to the {self.spoken(late.owner)}, "
                f"its committed offset is {committed.get(late.partition, 'none')}{self.health_of(late.owner)}"
            )

    def committed(self) -> dict[int, int]:
        return self.cluster.committed(self.settings.group, self.settings.topic)

    # -- records --------------------------------------------------------------------------------------

    def watch(self, topic: str) -> Reader:
        """The records that come into a topic from the first call on."""
        if topic not in self._readers:
            starts = self.cluster.end_offsets(topic)
            self._readers[topic] = self._stack.enter_context(self.cluster.reader(topic, starts))
        return self._readers[topic]

    def dead_letter_of(self, key: str, seconds: float) -> Seen | None:
        return self.watch(self.settings.dlt_topic).wait_for(keyed(key), seconds)

    # -- logs -----------------------------------------------------------------------------------------

    def new_lines(self, name: str) -> list[str]:
        """What a service has logged since the list began."""
        path = supervisor.log_path(self.settings, name)
        if not path.exists():
            return []
        start = self._log_starts.get(name, 0)
        with path.open("rb") as stream:
            stream.seek(start if start <= path.stat().st_size else 0)
            return stream.read().decode(errors="replace").splitlines()

    def lines_with(self, *words: str) -> list[tuple[Service, str]]:
        """The new lines of the members' logs that hold all these words."""
        found = []
        for member in self.members:
            found += [(member, line) for line in self.new_lines(member.name) if all(w in line for w in words)]
        return found

    # -- waiting --------------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], T], seconds: float) -> T | None:
        """The first true value of `condition`, None if `seconds` pass without one."""
        deadline = time.monotonic() + seconds
        while True:
            if value := condition():
                return value
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.15)


def keyed(key: str) -> Callable[[Seen], bool]:
    """Records with this key, for a reader that waits."""
    return lambda record: record.key == key.encode()


def whole(value: Mapping[str, Any], name: str) -> int:
    """A counter in an answer; a missing one or another type counts as -1, which no comparison accepts."""
    number = value.get(name)
    return number if isinstance(number, int) and not isinstance(number, bool) else -1
