"""What the instances of the group share through one compacted topic: the simulation flag and the counters.

Two promises. An order sent after the flag's answer sees the flag, whichever process handles it
(`SimulationFlag`). And a counter of the group never goes down: not by a rebalance, a stop or a restart
(`SharedCounters`; only `kill -9` loses what was counted in the last quarter of a second).
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from relance import Delivery, SendError, Table

log = logging.getLogger("orders.state")

STATE_TOPIC: Final = "relance.state"
"""No "orders" in the name: the course's `kafka-topics --list | grep orders` must show its three topics."""


def flag_key(group: str) -> str:
    """Where a group's flag lies; a group's name has no slash, so no two keys meet."""
    return f"{group}/simulate-transient-error"


def share_key(group: str, instance: str) -> str:
    """Where an instance's share lies."""
    return f"{group}/stats/{instance}"


FLAG_WAIT: Final = 2.0
"""Seconds that a handler waits, at most, for the flag's write that its order was stamped with."""
PUBLISH_EVERY: Final = 0.25
"""Seconds between two looks at the counters, and so the shortest time between two publications."""
BEAT_EVERY: Final = 3.0
"""Seconds after which an instance publishes even if nothing changed, to show that it lives."""
GONE_AFTER: Final = 10.0
"""Seconds of silence after which an instance counts as gone: the session timeout, as for the group itself."""


def iso(at: datetime) -> str:
    """A time as the service writes it: UTC, ISO 8601, milliseconds, Z."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _FlagValue(msgspec.Struct, frozen=True):
    enabled: bool
    write: str
    """Names this write: two writes of the same value are two writes."""
    by: str = ""
    at: str = ""


class SimulationFlag:
    """The switch of lab 3, and how far one must have read to know its latest state.

    The API stamps each order with the offset of the latest write that it knows of; a consumer reads the
    shared topic up to that offset before it looks. So "sent after the answer" is enough, and the two
    processes need not have the same speed.
    """

    def __init__(self, table: Table, group: str, instance: str) -> None:
        self._table = table
        self._key = flag_key(group)
        self._instance = instance
        self._stamp: int | None = None
        self._stamped_write = ""
        self._unread: int | None = None
        """The offset of our own write until it is read back."""
        self._missed: int | None = None

    @property
    def enabled(self) -> bool:
        """The flag as this process knows it."""
        value = self._value()
        return value is not None and value.enabled

    @property
    def write(self) -> str:
        """The name of the latest write that this process has read; empty before the first."""
        value = self._value()
        return "" if value is None else value.write

    async def set(self, enabled: bool) -> str:
        """Write the flag, read it back, and return the write's name. Raises SendError."""
        value = _FlagValue(enabled, uuid.uuid4().hex, self._instance, iso(datetime.now(UTC)))
        sent = await self._table.put(self._key, msgspec.to_builtins(value))
        while sent.offset < 0:  # written, and nobody says where: once more, since the orders need to know
            sent = await self._table.put(self._key, msgspec.to_builtins(value))
        self._unread = sent.offset
        if await self._table.reached(sent.offset, FLAG_WAIT):
            self._unread = None
            self._stamp, self._stamped_write = sent.offset, value.write
        else:
            log.warning("The flag is written (offset %d) and not read back yet", sent.offset)
        return value.write

    def stamp(self) -> int | None:
        """The offset for an order that is sent now; None while nobody ever wrote the flag."""
        if self._unread is not None and self._table.position <= self._unread:
            return self._unread
        self._unread = None
        write = self.write
        if write != self._stamped_write:
            # Somebody else's write: its own offset isn't told, but it lies below what we have read. None at
            # all: the topic was made anew, where the old offsets mean nothing.
            self._stamp, self._stamped_write = (self._table.position - 1 if write else None), write
        return self._stamp

    async def enabled_at(self, stamp: int | None) -> bool:
        """The flag, once all up to `stamp` is read; after FLAG_WAIT seconds, the flag as it is known."""
        if stamp is not None and stamp != self._missed and not await self._table.reached(stamp, FLAG_WAIT):
            # The topic was made anew, or the stamp is forged. The next order with it doesn't wait again.
            self._missed = stamp
            log.warning("Waited %gs in vain for offset %d of %s; going on", FLAG_WAIT, stamp, STATE_TOPIC)
        return self.enabled

    def _value(self) -> _FlagValue | None:
        found = self._table.get(self._key)
        if found is None:
            return None
        try:
            return msgspec.convert(found, _FlagValue)
        except msgspec.ValidationError:
            return None  # not written by an orders service, so it switches nothing on


class Counters(msgspec.Struct, frozen=True):
    """What the group counts; the API's documentation defines each (`orders.schemas.GroupStats`)."""

    success: int = 0
    errors: int = 0
    retries: int = 0
    dlt: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            self.success + other.success,
            self.errors + other.errors,
            self.retries + other.retries,
            self.dlt + other.dlt,
        )


class Share(msgspec.Struct, frozen=True, rename="camel"):
    """One instance's entry in the shared topic."""

    instance: str
    role: str
    session: str
    """Names one run of the process, so that two of the same name can be told apart."""
    counters: Counters
    partitions: list[int] = []
    flag_seen: str = ""
    """The flag's write that this instance has read, and stamps its orders with."""
    published_at: float = 0.0
    """Seconds since 1970, by the instance's clock."""
    stopped: bool = False

    def is_up(self, now: float) -> bool:
        """Whether the instance still speaks: it hasn't said goodbye, nor been silent for GONE_AFTER."""
        return not self.stopped and now - self.published_at < GONE_AFTER


class SharedCounters:
    """This instance's counters, published as they change, and those of all the others."""

    def __init__(
        self,
        table: Table,
        *,
        group: str,
        instance: str,
        role: str,
        flag: SimulationFlag,
        counted: Callable[[], Counters],
        partitions: Callable[[], list[int]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._prefix = share_key(group, "")
        self._key = share_key(group, instance)
        self._instance = instance
        self._role = role
        self._flag = flag
        self._counted = counted
        self._partitions = partitions
        self._clock = clock
        self._session = uuid.uuid4().hex
        self._before = Counters()
        self._published: Share | None = None
        self._failing = False
        self._warned_of = ""

    def restore(self) -> None:
        """Go on from what this instance last published; call once the shared topic has been read."""
        earlier = self._read(self._key)
        if earlier is not None:
            self._before = earlier.counters
            self._warned_of = earlier.session

    def own(self, *, stopped: bool = False) -> Share:
        """This instance's share, live."""
        return Share(
            instance=self._instance,
            role=self._role,
            session=self._session,
            counters=self._before + self._counted(),
            partitions=[] if stopped else self._partitions(),
            flag_seen=self._flag.write,
            published_at=self._clock(),
            stopped=stopped,
        )

    def shares(self) -> list[Share]:
        """All instances' shares by name, this one's live; those of instances that are gone count on."""
        found = {self._instance: self.own()}
        for key in self._table.items():
            share = self._read(key) if key.startswith(self._prefix) else None
            if share is not None and share.instance != self._instance:
                found[share.instance] = share
        return [found[name] for name in sorted(found)]

    def now(self) -> float:
        """The clock by which `Share.is_up` is asked."""
        return self._clock()

    async def keep_publishing(self) -> None:
        """Publish what changed, and a sign of life else, until cancelled."""
        while True:
            share = self.own()
            if self._is_news(share):
                await self.publish(share)
            self._warn_of_a_twin()
            await asyncio.sleep(PUBLISH_EVERY)

    async def publish(self, share: Share) -> None:
        """Write this instance's share. Of an outage one line is logged; the next write carries it all."""
        try:
            async with asyncio.timeout(BEAT_EVERY):
                await self.put(share)
        except (SendError, TimeoutError) as error:
            if not self._failing:
                why = str(error) or "no answer"
                log.warning("The counters can't be published, others see old ones: %s", why)
            self._failing = True
        else:
            self._published, self._failing = share, False

    def put(self, share: Share) -> Delivery:
        """Begin to write this instance's share."""
        return self._table.put(self._key, msgspec.to_builtins(share))

    def _is_news(self, share: Share) -> bool:
        last = self._published
        if last is None or share.published_at - last.published_at >= BEAT_EVERY:
            return True
        seen = (share.counters, share.partitions, share.flag_seen)
        return seen != (last.counters, last.partitions, last.flag_seen)

    def _warn_of_a_twin(self) -> None:
        # Two processes of one name would overwrite each other's counters by turns, silently.
        share = self._read(self._key)
        if share is not None and share.session not in (self._session, self._warned_of):
            self._warned_of = share.session
            log.warning(
                "Another process publishes as instance %r: give each its own INSTANCE_NAME", self._instance
            )

    def _read(self, key: str) -> Share | None:
        found = self._table.get(key)
        if found is None:
            return None
        try:
            return msgspec.convert(found, Share)
        except msgspec.ValidationError:
            return None  # not written by an orders service: nothing to count
