"""One `@app.consumer`: its runtime, its two clients and its worker, put together.

Two clients (decision 1): one reads the source topics in the user's group, one the retry topic in
`<group>.retry`. In one subscription three members of 6 + 3 partitions got 0/3/3 of the source (measured);
apart they get 2/2/2.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Collection, Sequence
from functools import partial

from relance.circuit import Circuit
from relance.clock import SystemClock
from relance.contracts import OnFailure
from relance.cores import SharedCore
from relance.engine.assignment import Assignment
from relance.errors import SendError
from relance.hangs import Hangs
from relance.hooks import Hooks
from relance.kafka.admin import Admin
from relance.kafka.config import common_config, consumer_config, is_cooperative
from relance.kafka.fitting import FittingProducer
from relance.kafka.handoff import Handoff, Handoffs
from relance.kafka.limits import TopicLimits
from relance.kafka.poller import Poller
from relance.kafka.stable import OpenTransactions
from relance.kafka.stall import Stall
from relance.kafka.start_finder import ASKING
from relance.kafka.starts import Feed
from relance.kafka.throttle import Throttle
from relance.kafka.transactional import ABORTED_WITHIN, committed_offsets, connect, producer_config
from relance.kafka.transactions import Transactor
from relance.kafka.watch import TopicWatch
from relance.outgoing import LARGEST
from relance.record import Outgoing
from relance.runtime import Runtime
from relance.settings import Settings
from relance.spec import ConsumerSpec, feeds_of, plan_of
from relance.workers.inline import InlineWorker
from relance.workers.loop import LoopWorker
from relance.workers.make import make_worker

__all__ = ["Consumer"]

_log = logging.getLogger("relance.kafka")

_numbers = itertools.count(1)
_STALL_MARGIN = 5.0  # seconds beyond the longest rebalance that our own timeouts allow


class Consumer:
    """A consumer at work."""

    def __init__(
        self,
        spec: ConsumerSpec,
        settings: Settings,
        *,
        hooks: Hooks,
        producer: FittingProducer,
        watch: TopicWatch,
        limits: TopicLimits,
        on_failure: OnFailure,
        circuit: Circuit | None = None,
        owner: str = "",
        place: int = 1,
    ) -> None:
        self.spec = spec
        group = settings.group or ""
        self.runtime = Runtime(
            plan_of(spec, settings, owner),
            clock=SystemClock(),
            random=random.random,
            hooks=hooks,
            max_record=limits.max_record,
            on_failure=on_failure,
            circuit=circuit,
        )
        self._handoffs = Handoffs(
            producer, settled=self._settled, failed=self._not_settled, trying=self._trying
        )
        self.runtime.writer = self
        self._transactors: dict[str, Transactor] = {}
        """By feed; none where hand-offs are acknowledged one by one."""
        self._throttles: list[Throttle] = []
        """Of their clients."""
        cooperative = is_cooperative(settings, spec.assignor)
        feeds = feeds_of(spec, group)
        # By their client ids the members of a group are told apart, so each of a process needs its own.
        count = next(_numbers)
        number = f"-{count}" if count > 1 else ""
        asking = ASKING
        if spec.handoff == "transactional":
            self._transactors = {feed.name: self._transactor(feed, settings, limits) for feed in feeds}
            asking += ABORTED_WITHIN  # one who crashed may have left a transaction open
        self.pollers = [
            Poller(
                feed,
                self.runtime,
                consumer_config(
                    settings,
                    feed=feed.name + number,
                    group=feed.group,
                    assignor=spec.assignor,
                    owner=owner,
                    place=place,
                ),
                cooperative=cooperative,
                commit_interval=settings.commit_interval,
                committer=self._transactors.get(feed.name),
                asking=asking,
                logs=watch,
                others=partial(committed_offsets, common_config(settings), feed.group, stable=False),
            )
            for feed in feeds
        ]
        self._rebalance = settings.drain_timeout + asking
        patience = settings.session_timeout + settings.drain_timeout + _STALL_MARGIN
        self._stalls = [Stall(patience) for _ in self.pollers]
        self._unreadable: dict[str, str] = {}
        """Groups whose members cannot be read, and why; each is told once."""
        self._open = [OpenTransactions() for _ in self.pollers]
        self.worker = make_worker(spec, self.runtime)
        self._hangs = Hangs(SystemClock(), settings.hang_warning)

    def start(self) -> None:
        """Join the groups."""
        for transactor in self._transactors.values():
            transactor.start()
        for poller in self.pollers:
            poller.start()

    def share(self, core: SharedCore) -> bool:
        """Poll the source on this core from now on. False: the handler has no thread that could share it."""
        if not isinstance(self.worker, InlineWorker | LoopWorker):
            return False
        self.pollers[0].core = core
        return True

    def topic_seen(self, topic: str, topic_id: str) -> None:
        """The topic has this id now: partitions read under another one are of a topic that is gone."""
        stale = self.runtime.stale(topic, topic_id)
        if stale:
            _log.warning("topic %s was made again: reading it anew", topic)
            for poller in self.pollers:
                poller.restart(stale)

    def look_for_hangs(self) -> None:
        """Tell of records that a handler has had for long."""
        if self._hangs.after:
            self._hangs.look(self.runtime.held_for(self._hangs.after), self.spec.timeout)

    def look(self, admin: Admin) -> None:
        """Whether the clients take part, seen from outside (one that doesn't joins again); what was stuck."""
        self.runtime.write_off_again()
        now = time.monotonic()
        members, unreadable = admin.members([poller.feed.group for poller in self.pollers])
        for group, problem in unreadable.items() - self._unreadable.items():
            _log.warning(
                "group %s: its members cannot be read (%s): whether it counts this client among them is not"
                " watched meanwhile",
                group,
                problem,
            )
        self._unreadable = unreadable
        for poller, stall, transactions in zip(self.pollers, self._stalls, self._open, strict=True):
            reading = self.runtime.reading(poller.feed.name)
            stable = admin.stable_ends(reading)
            if transactions.due(now):
                at_the_end = {tp: end for tp, end in stable.items() if reading[tp] >= end}
                transactions.look(now, at_the_end, admin.ends(at_the_end))
            group = poller.feed.group
            self.runtime.members_seen(poller.feed.name, members.get(group), now)
            reason = stall.look(
                now,
                is_member=poller.client_id in members[group] if group in members else None,
                reading={} if poller.throttle.told() else reading,
                ends=stable,
            )
            if reason is not None:
                _log.error("%s: %s", ", ".join(poller.feed.topics), reason)
                poller.rejoin()

    def stop(self, deadline: float) -> bool:
        """Drain, commit and leave, until `deadline` (monotonic); whether all of it was done in time."""
        self.runtime.drain(deadline)
        for poller in self.pollers:
            poller.stop(deadline)
        # Leaving takes the broker's answer; a second is long for that, and a hanging close must end.
        end = max(deadline, time.monotonic() + 1.0)
        joined = [poller.join(end - time.monotonic()) for poller in self.pollers]
        return all(joined)

    def stuck(self, longest: float) -> list[str]:
        """Pollers that have not come round for `longest` seconds, and what a rebalance may take beside."""
        now = time.monotonic()
        return [
            f"the polling thread of {', '.join(p.feed.topics)} has not moved for {now - p.last_tick:.0f} s"
            for p in self.pollers
            if now - p.last_tick > longest + (self._rebalance if p.rebalancing else 0.0)
        ]

    def slowed(self) -> dict[str, dict[str, str]]:
        """What holds its clients up that is not theirs to mend, as details for health."""
        throttles = [poller.throttle for poller in self.pollers] + self._throttles
        told = {throttle.name: text for throttle in throttles if (text := throttle.told())}
        open_ones = {str(tp): text for each in self._open for tp, text in each.told.items()}
        found = {"throttled": told, "open_transactions": open_ones}
        return {name: each for name, each in found.items() if each}

    # -- runtime.Writer ----------------------------------------------------------------------------

    def write(self, assignment: Assignment, offset: int, outgoing: Sequence[Outgoing]) -> None:
        """Write a hand-off until it is durable."""
        if self._transactors:
            self._transactors[assignment.feed].submit(assignment, offset, outgoing)
            return
        self._handoffs.submit(Handoff(assignment, offset, tuple(outgoing)))

    def hurry(self, assignments: Collection[Assignment]) -> None:
        """Try once more, now, what was refused of partitions that are about to go."""
        for transactor in self._transactors.values():
            transactor.hurry(assignments)
        self._handoffs.hurry(assignments)

    def _transactor(self, feed: Feed, settings: Settings, limits: TopicLimits) -> Transactor:
        common = common_config(settings)
        throttle = Throttle(f"transactions of {', '.join(feed.topics)}")
        self._throttles.append(throttle)
        config = producer_config(common, feed.group, LARGEST)
        return Transactor(
            self.runtime,
            feed.name,
            feed.group,
            connect=connect({**config, "throttle_cb": throttle.note}),
            committed=partial(committed_offsets, common, feed.group),
            limits=limits,
            interval=settings.commit_interval,
            drain_timeout=settings.drain_timeout,
        )

    def _settled(self, handoff: Handoff) -> None:
        self.runtime.settled(handoff.assignment, handoff.offset)

    def _trying(self, handoff: Handoff) -> None:
        self.runtime.tried_again(handoff.assignment, handoff.offset)

    def _not_settled(self, handoff: Handoff, topic: str, error: SendError) -> None:
        self.runtime.not_settled(handoff.assignment, handoff.offset, f"{topic} takes no record: {error}")
