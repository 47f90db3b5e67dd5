"""One thread that owns one consuming client: it polls, pauses, resumes, commits, answers rebalances.

Promises: no handler, hook or decision of a user runs here; only this thread calls the client; what it
commits comes from the hub, never from the client's own offset store; a revocation returns only after what
ran was drained (or its deadline passed), committed and fenced.

Callbacks run inside `poll`. One that raised there would lose the records of that very call, so each keeps
its error, and it is raised after the call has returned.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from confluent_kafka import Consumer as Client
from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as ClientPartition

from relance.burst import LastingLog
from relance.cores import SharedCore
from relance.errors import KafkaErrorKind, RelanceError, SettingsError, kafka_error
from relance.kafka.cluster import Committed, QuietLog, error_text, refusal
from relance.kafka.commits import Committer, GroupCommitter
from relance.kafka.forked import kept_in_children
from relance.kafka.hub import Hub
from relance.kafka.intake import Intake
from relance.kafka.start_finder import ASKING, WAITED_FOR, StartFinder, passes
from relance.kafka.starts import Feed, Logs
from relance.kafka.throttle import Throttle
from relance.record import Record, TopicPartition

__all__ = ["Poller"]

_log = logging.getLogger("relance.kafka")
_rebalance_log = logging.getLogger("relance.rebalance")

_POLL = 0.05  # seconds; the longest a command, a commit or a stop waits for an idle client
_SHORT_POLL = 0.005  # seconds; while records wait for commits (`engine.crashes`), or workers for records
_BATCH = 5000  # records; each call gives the lock of the interpreter away, and must get it back
_MUCH = 100  # records in a call, after which there is no need to wait for the next one


class Poller:
    """The thread of one client. `cooperative` tells how assignments change (KIP-429, KIP-848) or not."""

    def __init__(
        self,
        feed: Feed,
        hub: Hub,
        config: Mapping[str, Any],
        *,
        cooperative: bool = True,
        commit_interval: float = 1.0,
        committer: Committer | None = None,
        asking: float = ASKING,
        logs: Logs,
        others: Callable[[Sequence[TopicPartition]], dict[TopicPartition, Committed]],
    ) -> None:
        self.feed = feed
        self.client_id = str(config["client.id"])
        """By which the group's members are told apart (asking the client for its member id holds the GIL
        while it waits, and hung the process when another thread polled: measured)."""
        self.last_tick = time.monotonic()
        """When the loop last came round, on the monotonic clock; health looks at it."""
        self.rebalancing = False
        """Whether a rebalance holds it up."""
        self._hub = hub
        self._cooperative = cooperative
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._stop_by = 0.0
        self._problem: BaseException | None = None
        self._paused: set[TopicPartition] = set()
        self._owned: set[TopicPartition] = set()
        self._placed: set[TopicPartition] = set()
        """What the client was told to read: taking away what it does not hold is an error to it."""
        self._gone: list[TopicPartition] = []
        """Whose place in the log is gone: to be restarted when the batch at hand is passed on."""
        self._intake = Intake(hub, feed.name)
        self._hurried = False
        """The last call brought so many records that the next ones are there already."""
        self._lasting = LastingLog(_log.name)
        self.core: SharedCore | None = None
        """Which core it shares, if it does."""
        self._committer: Committer = committer or GroupCommitter(
            hub, feed.name, commit_interval, self._lasting.warning
        )
        self.throttle = Throttle(", ".join(feed.topics))
        """Whether brokers hold the client back."""
        try:
            self._client = Client(
                {
                    **config,
                    "on_commit": self._on_commit,
                    "error_cb": self._on_error,
                    "throttle_cb": self.throttle.note,
                },
                logger=QuietLog(),
            )
        except KafkaException as error:
            raise SettingsError("client", error_text(error)) from error
        self._finder = StartFinder(
            self._client,
            feed,
            logs,
            others=others,
            asking=asking,
            answered=self._answered,
            giving_up=self._stopping.is_set,
        )
        kept_in_children(self, "_client")
        self._thread = threading.Thread(target=self._run, name=f"relance-poller-{feed.name}", daemon=True)

    def start(self) -> None:
        """Subscribe and poll."""
        self._thread.start()

    def stop(self, deadline: float) -> None:
        """Commit what is finished, by `deadline` (monotonic), leave the group and end; see `join`."""
        self._stop_by = deadline
        self._committer.stop(deadline)
        self._stopping.set()

    def join(self, timeout: float) -> bool:
        """Whether the thread has ended, at most `timeout` seconds from now (the client's close can hang)."""
        self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()

    def restart(self, tps: Sequence[TopicPartition]) -> None:
        """Read `tps` anew: their topic was made again. Any thread may ask."""
        self._commands.put(lambda: self._restart(list(tps)))

    def rejoin(self) -> None:
        """Leave the group and join it again. Any thread may ask."""
        self._commands.put(self._rejoin)

    # -- the loop ----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._subscribe()
            while not self._stopping.is_set():
                self._tick()
            self._commit_before_leaving()
        except Exception as error:  # noqa: BLE001  whatever it is, the hub must know that nobody polls any more
            self._hub.fail(error)
        finally:
            if self.core is not None:
                self.core.leave()
            self._close()

    def _subscribe(self) -> None:
        self._client.subscribe(
            list(self.feed.topics),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def _rejoin(self) -> None:
        _rebalance_log.warning("[REBALANCE] Leaving group %s and joining it again", self.feed.group)
        self._client.unsubscribe()  # the revocation comes with the next polls, and drains and commits
        self._subscribe()

    def _tick(self) -> None:
        self.last_tick = time.monotonic()
        if self.core is not None:
            self.core.look(much=self._hurried)
        while not self._commands.empty():
            self._commands.get()()
        if self._owned:
            self._committer.commit_if_due(self._client)
        if self._intake.backed_up():
            return
        self._sync_pauses()
        if self._hurried:
            messages = self._client.consume(_BATCH, 0)
        else:
            # consume would wait until it has all: so wait for one, and then see what is there.
            soon = self._intake.hunting or self._hub.careful(self.feed.name)
            first = self._client.poll(_SHORT_POLL if soon else _POLL)
            messages = [] if first is None else [first, *self._client.consume(_BATCH, 0)]
        self._raise_problem()
        # Each call of the client gives the interpreter away and must get it back: one, while there is much.
        self._hurried = len(messages) >= _MUCH
        if messages:
            self._intake.took(messages)
            self._take(messages)

    def _commit_before_leaving(self) -> None:
        # While a rebalance is under way the broker refuses the commit of the last generation, and the one
        # that a close would make has no second try. Polling lets the new generation come.
        while time.monotonic() < self._stop_by:
            if self._owned:
                self._committer.commit_now(self._client)
            if not self._committer.waiting:
                return
            self._client.poll(_POLL)  # what it brings is dropped: all is drained
            self._raise_problem()

    def _sync_pauses(self) -> None:
        wanted = self._hub.pauses(self.feed.name, crowded=self._intake.crowded) & self._owned
        if wanted == self._paused:
            return
        pause, resume = wanted - self._paused, (self._paused - wanted) & self._owned
        if pause:
            self._client.pause([ClientPartition(*tp) for tp in pause])
        if resume:
            self._client.resume([ClientPartition(*tp) for tp in resume])
        self._paused = wanted

    def _take(self, messages: list[Message]) -> None:
        # No Python code of ours runs for each record here: the handler's thread wants the interpreter, too.
        for found in _runs(messages, one_topic=len(self.feed.topics) == 1):
            if not any(map(Message.error, found)):
                self._pass_on(found)
                continue
            for is_error, some in groupby(found, lambda message: message.error() is not None):
                if is_error:
                    for message in some:
                        self._take_error(message)
                else:
                    self._pass_on(list(some))
        if self._gone:
            # Not earlier: what is left of the batch would be counted for the new assignment.
            gone, self._gone = self._gone, []
            self._restart(gone)

    def _pass_on(self, messages: list[Message]) -> None:
        records = list(map(Record, messages))  # type: ignore[arg-type]
        self._hub.received(self.feed.name, TopicPartition(records[0].topic, records[0].partition), records)

    def _take_error(self, message: Message) -> None:
        error = message.error()
        assert error is not None
        code = error.code()
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if code == KafkaError._PARTITION_EOF:
            self._hub.end_reached(TopicPartition(str(topic), int(partition or 0)), int(offset or 0))
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE) and topic is not None:
            # Retention passed it, or the topic was deleted and made again: where to go on is decided anew.
            self._gone.append(TopicPartition(topic, int(partition or 0)))
        elif error.fatal() or (kafka_error(code).kind is KafkaErrorKind.FATAL and code not in WAITED_FOR):
            self._hub.fail(refusal(error, topic or ", ".join(self.feed.topics), self.feed.group))
        else:
            self._lasting.warning((code, topic), f"{topic or 'consumer'}: {error.str()}")

    # -- rebalances --------------------------------------------------------------------------------

    def _on_assign(self, _: Client, partitions: list[ClientPartition]) -> None:
        with self._guard():
            self._assign([TopicPartition(p.topic, p.partition) for p in partitions])

    def _assign(self, tps: list[TopicPartition]) -> None:
        self._intake.reassigned()
        try:
            starts = self._finder.starts(tps)
        except RelanceError as error:
            if not passes(error):
                raise
            # Nobody says where to start, so nothing may be read; the group must hear that we hold nothing.
            _rebalance_log.warning("[REBALANCE] %s", error)
            if self._cooperative:
                self._client.incremental_assign([])
            else:
                self._client.unassign()
                self._placed.clear()
            self.rejoin()
            return
        self._owned.update(tps)
        self._paused.difference_update(tps)
        self._hub.assigned(self.feed.name, starts)
        self._place({start.tp: start.offset for start in starts})
        self._paused.update(s.tp for s in starts if s.problem or s.unbegun)
        if self._paused:  # pausing counts only after the assignment
            self._client.pause([ClientPartition(*tp) for tp in self._paused if tp in self._owned])
        self._committer.commit_if_due(self._client)  # the mark that somebody works here, before records come

    def _place(self, starts: dict[TopicPartition, int]) -> None:
        self._placed.update(starts)
        if self._cooperative:
            placed = [ClientPartition(*tp, offset) for tp, offset in starts.items()]
            self._client.incremental_assign(placed)
        else:
            # All at once is the only way here; those that stay are read on from where they are.
            positions = self._hub.positions(self.feed.name)
            placed = [ClientPartition(*tp, positions[tp]) for tp in sorted(self._placed)]
            self._client.assign(placed)
        # A pause outlives its assignment in the client: what comes again would come paused (measured).
        self._client.resume(placed)

    def _on_revoke(self, _: Client, partitions: list[ClientPartition]) -> None:
        with self._guard():
            tps = [TopicPartition(p.topic, p.partition) for p in partitions]
            self._committer.revoking(self._client)
            # The client may name what we don't own (its issue #1551).
            self._hub.revoking(self.feed.name, [tp for tp in tps if tp in self._owned])
            self._committer.commit_last(self._client, tps)
            self._let_go(tps, lost=False)

    def _on_lost(self, _: Client, partitions: list[ClientPartition]) -> None:
        with self._guard():
            self._let_go([TopicPartition(p.topic, p.partition) for p in partitions], lost=True)

    def _let_go(self, tps: list[TopicPartition], *, lost: bool) -> None:
        gone = [tp for tp in tps if tp in self._owned]
        self._hub.revoked(self.feed.name, gone, lost=lost)
        self._owned.difference_update(tps)
        self._paused.difference_update(tps)
        if self._cooperative:
            self._unplace(tps)
        else:
            self._placed.clear()
            self._client.unassign()

    def _unplace(self, tps: list[TopicPartition]) -> None:
        there = [tp for tp in tps if tp in self._placed]
        self._placed.difference_update(there)
        self._client.incremental_unassign([ClientPartition(*tp) for tp in there])

    def _restart(self, tps: list[TopicPartition]) -> None:
        tps = [tp for tp in tps if tp in self._owned]
        if not tps:
            return
        self._hub.revoked(self.feed.name, tps, lost=True)
        self._owned.difference_update(tps)
        self._paused.difference_update(tps)
        if self._cooperative:
            self._unplace(tps)
        else:
            self._placed.difference_update(tps)
        self.rebalancing = True  # it asks as a rebalance does, and may take as long
        try:
            self._assign(tps)
        finally:
            self.rebalancing = False

    # -- inside ------------------------------------------------------------------------------------

    def _close(self) -> None:
        try:
            # A cooperative client that owns nothing would close without a word, and hold up the group's next
            # rebalances until its session is over (librdkafka 2.16, measured).
            self._client.unsubscribe()
        except KafkaException as error:
            _log.debug("unsubscribing: %s", error)
        try:
            self._client.close()
            self._raise_problem()
        except (KafkaException, RelanceError, RuntimeError) as error:
            _log.warning("the client did not close cleanly: %s", error)
        finally:
            self._committer.close()

    def _on_commit(self, error: KafkaError | None, partitions: list[ClientPartition]) -> None:
        with self._guard():
            self._committer.answered(error, partitions)

    def _on_error(self, error: KafkaError) -> None:
        with self._guard():
            if error.fatal():
                self._hub.fail(refusal(error, ", ".join(self.feed.topics), self.feed.group))
            else:
                _log.debug("consumer: %s", error.str())

    def _answered(self) -> None:
        self.last_tick = time.monotonic()  # an answer is progress, for health

    def _guard(self) -> _Guard:
        return _Guard(self)

    def _raise_problem(self) -> None:
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem


def _runs(messages: list[Message], *, one_topic: bool) -> Iterator[list[Message]]:
    """Neighbours of one partition together."""
    partitions = list(map(Message.partition, messages))
    if one_topic and partitions.count(partitions[0]) == len(partitions):  # mostly: they come by the megabyte
        yield messages
        return
    for _, neighbours in groupby(messages, Message.partition):
        if one_topic:
            yield list(neighbours)
        else:
            for _, found in groupby(neighbours, Message.topic):
                yield list(found)


class _Guard:
    """Keeps what a callback raises for after the poll."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller

    def __enter__(self) -> None:
        self._poller.rebalancing = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        self._poller.rebalancing = False
        if error is not None and self._poller._problem is None:
            self._poller._problem = error
        return True
