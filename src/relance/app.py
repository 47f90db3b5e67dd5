"""The public front: an application is a consumer group with handlers, and what they need beside them.

Promises: nothing starts before all topics are there and all tables are read; nothing is committed before what
it depends on is durable; a stop drains, commits and leaves within one shared deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import multiprocessing
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TypeVar

from relance.circuit import Circuit
from relance.collector import startup_set_aside
from relance.consumer import Consumer
from relance.contracts import Look
from relance.dead_letters.envelope import build, metadata_headers
from relance.dead_letters.envelope import encode as encode_letter
from relance.dead_letters.masking import masked
from relance.dead_letters.telling import teller_of
from relance.decoding import decoder_for, handler_shape
from relance.delivery import Delivery
from relance.encoding import checked_headers, checked_topic, encode, encode_key
from relance.engine.engine import Ordering
from relance.engine.outcome import Paths
from relance.errors import (
    HandlerExitError,
    RelanceError,
    SettingsError,
)
from relance.forks import forgotten_by_children
from relance.hooks import BreakerHook, Hook, Hooks, checked_hook
from relance.kafka.cluster import checked_topic_name
from relance.kafka.config import common_config
from relance.kafka.letters import DeadLetters
from relance.kafka.starts import Where
from relance.kafka.table import Table
from relance.needs import NeededTopic, needed_topics
from relance.outgoing import NOTHING_HIDDEN
from relance.policies.breaker import CircuitBreaker
from relance.policies.masking import Mask
from relance.policies.retry import RetryPolicy
from relance.record import TopicPartition
from relance.runner import Runner
from relance.settings import Settings, check_setting
from relance.signals import caught_signals
from relance.spec import (
    ConsumerSpec,
    HandOff,
    Workers,
    check_assignor,
    check_handling,
    check_handoff,
    check_options,
    check_spec,
    checked_max_crashes,
    default_workers,
)
from relance.stats import Health, InFlight, Stats

__all__ = ["App"]

_log = logging.getLogger("relance")

imported_by_command: ContextVar[str | None] = ContextVar("imported_by_command", default=None)
"""The module that a command of relance's imports for its App: its import must not run that App."""

H = TypeVar("H", bound=Callable[..., Any])

HeaderItems = Sequence[tuple[str, bytes | None]]

_STUCK = 5.0  # seconds without a turn of a polling thread
_AWAY = 10.0  # seconds without an answer of any broker
_LONG = 1.0  # seconds after which health names a record in flight, or a running hook


class App:
    """Consumers of one group.

    `settings` takes the place of the environment and the file (`RELANCE_...`), which are read when none is
    given: `Settings.load(drain_timeout=20.0)` has both. `client` are raw settings of librdkafka, for this
    Python code only. `mask` says what is hidden in dead letters, logs and figures. Raises SettingsError.
    """

    def __init__(
        self,
        group: str,
        *,
        bootstrap_servers: str | None = None,
        settings: Settings | None = None,
        client: Mapping[str, Any] | None = None,
        mask: Mask | None = None,
    ) -> None:
        if mask is not None and not isinstance(mask, Mask):
            raise SettingsError("mask", f"{mask!r:.60} is no Mask: Mask(headers=['authorization'])")
        self._mask = mask or NOTHING_HIDDEN
        given: dict[str, Any] = {"group": group}
        if bootstrap_servers is not None:
            given["bootstrap_servers"] = bootstrap_servers
            given["servers_from"] = "App(bootstrap_servers=...)"
        if client is not None:
            _check_client(client)
        if settings is not None and not isinstance(settings, Settings):
            raise SettingsError("settings", f"{settings!r:.60} are no Settings: Settings(send_timeout=5.0)")
        if client:
            given["client"] = dict(client)
        self.settings = dataclasses.replace(settings, **given) if settings else Settings.load(**given)
        if self.settings.group is None:
            raise SettingsError("group", "name the consumer group: App('orders-consumer-group')")
        self._specs: list[ConsumerSpec] = []
        self._tables: dict[str, Table] = {}
        self._hooks = Hooks(self._mask)
        self._runner: Runner | None = None
        self._stop_lock = threading.Lock()
        self._stop_asked = False
        self._forked = False
        """Whether this process was forked from the one in which the application runs."""

    # -- what it is made of ------------------------------------------------------------------------

    def consumer(
        self,
        *topics: str,
        retry: RetryPolicy | None = None,
        retry_topic: str | None = None,
        dead_letter_topic: str | None = None,
        ordering: Ordering = "partition",
        concurrency: int = 1,
        workers: Workers | None = None,
        batch: int | None = None,
        timeout: float | None = None,
        breaker: CircuitBreaker | None = None,
        dead_letter_pointer: bool = False,
        max_in_memory_wait: float = 10.0,
        strict_order: bool = False,
        assignor: str | None = None,
        start: Where | None = None,
        on_out_of_range: Where | None = None,
        handoff: HandOff = "acknowledged",
        max_crashes: int | None = 2,
    ) -> Callable[[H], H]:
        """Consume `topics` with the decorated function, `handler(value)` or `handler(value, record)`.

        The function stays as it is, so a unit test can call it. It succeeds by returning and fails by
        raising; what then happens is `retry`'s to say (no policy: no retry).

        retry_topic: where waits longer than `max_in_memory_wait` seconds go (0: all), with `retry`; records
          that wait there lose their place in the order, so `strict_order=True` forbids it.
        dead_letter_topic: where records go that are given up. Without one the consumer stops instead.
        dead_letter_pointer: whether a letter that its topic does not take may leave the value out and say
          where it lies (which retention may delete). Without it the partition waits for a larger topic.
        ordering: what is handled one after the other: a "partition", a "key", or nothing ("none").
        concurrency: how many records may be in flight at once.
        workers: where a sync handler runs: "inline" (on one thread, the default), "threads" (the default with
          `concurrency`), or "processes", for work that needs the processor or may bring its process down;
          the handler must then be importable. An async handler runs on the loop.
        batch: give the handler up to this many records at once, `handler(values)` or `handler(values,
          records)`, in the order that `ordering` promises. It fails one by one by raising BatchError;
          whatever else it raises, the batch is handled again record by record, and each is judged alone;
          where there is order, up to the first that fails, which those behind it wait for.
        timeout: seconds that the handler may take. An async one is cancelled then and a process ended, and
          the attempt has failed with HandlerTimeoutError; a thread cannot be ended, so health is DOWN.
        breaker: when to stop calling the handler because what it calls is down, and when to try again; see
          CircuitBreaker. Breakers of one name are one for all handlers of this App. A handler with one
          takes one record (or one batch) at a time from the buffer.
        start: where to begin without a commit: "earliest", "latest" (after what was there before the group;
          a partition or topic that appears later is read whole) or "fail".
        on_out_of_range: the same for a commit whose offset is gone from the log.
        handoff: how a retry record, a dead letter and what `record.send` sends are written. "acknowledged":
          each before its record's offset is committed; a crash in between writes it again. "transactional":
          in one Kafka transaction with that offset, so whoever reads them with isolation.level=read_committed
          (others see what was aborted, too) finds each once, whatever crashes. It takes Kafka 2.5 or newer,
          and where there are ACLs, Write on transactional ids with the group's name as prefix.
          It does not cover what a handler does elsewhere, `app.send` included: that is done again when a
          record is handled again. It costs a transaction (some milliseconds, and markers in each partition
          written to) for each batch of hand-offs and each commit; they are visible when it ends; and after a
          crash their readers and the partitions' next owner may wait 20 seconds. See docs/transactions.md.
        max_crashes: how often the process may die while it handles a record alone, before the record is
          dead-lettered with CrashLoopError unhandled; without a dead-letter topic its partition stops then.
          None or 0: it is handled again for ever.

        Raises SettingsError for a value that cannot be meant, and for an option that would have no effect.
        Raises RelanceError once the application has begun to run.
        """
        self._not_yet_run("consumer", ", ".join(map(str, topics)))
        paths = Paths(retry_topic, dead_letter_topic, max_in_memory_wait, dead_letter_pointer)
        settings = self.settings
        chosen = settings.assignor if assignor is None else check_setting("assignor", assignor)
        begin = settings.start if start is None else check_setting("start", start)
        lost = settings.on_out_of_range
        if on_out_of_range is not None:
            lost = check_setting("on_out_of_range", on_out_of_range)
        check_options(topics, retry, paths, ordering, concurrency, strict_order, breaker)
        check_assignor(assignor, settings)
        check_handling(workers, batch, timeout)
        check_handoff(handoff, settings)
        crashes = checked_max_crashes(max_crashes)

        def register(handler: H) -> H:
            self._not_yet_run("consumer", ", ".join(topics))
            shape = handler_shape(handler, batch=batch is not None)
            decoder_for(shape.annotation)  # refuses now what could never be decoded
            spec = ConsumerSpec(
                handler=handler,
                shape=shape,
                topics=topics,
                retry=retry or RetryPolicy(max_attempts=1),
                paths=paths,
                ordering=ordering,
                concurrency=concurrency,
                workers=workers or default_workers(shape, concurrency),
                batch=batch,
                timeout=timeout,
                assignor=chosen,
                start=begin,
                on_out_of_range=lost,
                breaker=breaker,
                handoff=handoff,
                max_crashes=crashes,
                mask=self._mask,
            )
            check_spec(spec, beside=self._specs)
            self._specs.append(spec)
            if retry_topic is not None and ordering != "none":
                _log.info(
                    "%s: a record that waits in %s loses its place in the order of its %s;"
                    " strict_order=True forbids it",
                    shape.name,
                    retry_topic,
                    ordering,
                )
            return handler

        return register

    def on_assigned(self, hook: Hook) -> Hook:
        """Decorator: call `hook(partitions)` after partitions came (source topics only).

        A hook is a function and not async; this holds for the other hooks, too. Raises SettingsError.
        """
        self._hooks.on_assigned.append(checked_hook("on_assigned", hook))
        return hook

    def on_revoked(self, hook: Hook) -> Hook:
        """Decorator: call `hook(partitions)` before partitions go, when what ran is drained.

        It holds the whole rebalance up, so it is waited for only until the drain's deadline.
        """
        self._hooks.on_revoked.append(checked_hook("on_revoked", hook))
        return hook

    def on_lost(self, hook: Hook) -> Hook:
        """Decorator: call `hook(partitions)` when partitions are gone already, without a chance to commit."""
        self._hooks.on_lost.append(checked_hook("on_lost", hook))
        return hook

    def on_breaker_open(self, hook: BreakerHook) -> BreakerHook:
        """Decorator: call `hook(opened)`, with a CircuitBreakerOpen, after a circuit breaker has opened."""
        self._hooks.on_breaker_open.append(checked_hook("on_breaker_open", hook))
        return hook

    def table(self, topic: str) -> Table:
        """The compacted topic `topic` as a dictionary; made with one partition if it is missing."""
        checked_topic_name(topic, "table")
        self._not_yet_run("table", topic)
        return self._tables.setdefault(topic, Table(topic))

    def needed_topics(self) -> list[NeededTopic]:
        """The topics that its consumers and tables read and write; `relance topics ensure` makes them."""
        return needed_topics(self._specs, self._tables)

    # -- running -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until SIGTERM, SIGINT or a fatal error; the program's last call, from its main thread.

        The first signal drains, a second one ends the process at once; the same within 0.5 s is one.

        Exits (SystemExit) with 1 after a failure, which the log names, and with 2 for a wrong setting. Raises
        RelanceError on another thread than the main one, and where an asyncio loop runs already.
        """
        _check_not_imported()
        if not self._specs:
            _log.critical(
                "the application has no consumer, so nothing would run: import what @app.consumer is in"
            )
            sys.exit(2)
        _check_place()
        runner = self._run_once(owns_process=True)
        if self._stop_asked:
            _log.info("stopped before it began")
            return
        try:
            with caught_signals(lambda number: runner.stop()) as listen:
                try:
                    runner.start()
                    with startup_set_aside():
                        runner.work(on_loop=listen)
                finally:
                    runner.finish()
        except SettingsError as error:
            _log.critical("%s", self._mask.text(str(error)))
            sys.exit(2)
        except RelanceError as error:
            _log.critical("%s", self._mask.text(str(error)))
            sys.exit(1)
        if runner.failure is not None:
            sys.exit(runner.failure.status if isinstance(runner.failure, HandlerExitError) else 1)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run inside a loop of somebody else's, as in a web server's lifespan; leaving drains and stops.

        Async handlers run on this loop, sync ones on a thread each. A handler that still runs at the drain
        deadline is left behind, its record uncommitted. After a fatal error `health()` is DOWN
        with the reason, and leaving raises it. Entering raises BrokerUnavailableError, TopicMissingError or
        SettingsError.
        """
        _check_not_imported()
        runner = self._run_once(owns_process=False)
        if self._stop_asked:
            raise RelanceError("the application was told to stop (App.stop) before it began to run")
        tasks: list[asyncio.Task[None]] = []
        try:
            await asyncio.to_thread(runner.start)
            tasks = runner.work_on(asyncio.get_running_loop())
            yield
        finally:
            await runner.finish_on_loop(tasks)
        if runner.failure is not None:
            raise runner.failure

    def stop(self) -> None:
        """Begin to stop, once; returns at once. Any thread may call it.

        Called before `run`, it makes `run` return at once; called before `running`, entering that raises
        RelanceError.
        """
        with self._stop_lock:
            runner = self._runner
            self._stop_asked = self._stop_asked or runner is None
        if runner is not None:
            runner.stop()

    def _forget(self) -> None:
        """In a forked child: the application runs in its parent."""
        self._runner, self._stop_lock = None, threading.Lock()
        self._forked = True

    def _not_yet_run(self, what: str, name: str) -> None:
        if self._runner is not None or self._forked:
            raise RelanceError(f"{what} {name}: too late, the application has begun to run; define it before")

    def _run_once(self, *, owns_process: bool) -> Runner:
        if self._runner is not None and self._runner.in_memory:
            raise RelanceError(
                "this App is in a World, which runs it: call neither app.run() nor app.running() there (a"
                " TestClient runs the lifespan only as a context manager)"
            )
        if self._runner is not None or self._forked:
            raise RelanceError(
                "this App runs, or has run: an App runs once. To run again make another one, for example in a"
                " function that builds it"
            )
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # Without this, each child would be a consumer with children of its own.
            raise RelanceError(
                "the application was started by the import of its own module in a worker process: put what"
                ' starts it (app.run()) under `if __name__ == "__main__":`'
            )
        runner = Runner(
            self.settings,
            self._specs,
            self._tables.values(),
            self._hooks,
            owns_process=owns_process,
            mask=self._mask,
        )
        forgotten_by_children(self._forget)
        with self._stop_lock:
            self._runner = runner
        return runner

    # -- beside the handlers -----------------------------------------------------------------------

    def send(
        self, topic: str, value: Any, *, key: str | bytes | None = None, headers: HeaderItems = ()
    ) -> Delivery:
        """Write a record; the Delivery ends in `Sent(topic, partition, offset)` or raises SendError.

        `value`: bytes, str, None, or what msgspec or pydantic can write as JSON. Raises SendError at once
        for what can't be sent at all.
        """
        producer = None if self._runner is None else self._runner.producer
        if producer is None:
            here = multiprocessing.parent_process() is None
            hint = "" if here else "; in a worker process, record.send sends"
            if self._forked:
                hint = "; it runs in the process that this one was forked from, which must send"
            raise RelanceError(f"the application is not running: nothing can be sent{hint}")
        delivery = Delivery()
        producer.send(
            checked_topic(topic),
            encode(value),
            key=encode_key(key),
            headers=checked_headers(headers),
            answer=delivery.answer,
        )
        return delivery

    def dead_letter(
        self,
        topic: str,
        value: Any,
        *,
        key: str | bytes | None,
        error: Exception,
        source_topic: str,
        headers: HeaderItems = (),
    ) -> Delivery:
        """Write a dead letter for what never became a record (so without partition and offset)."""
        raw_key, raw, items = encode_key(key), encode(value), checked_headers(headers)
        built = build(
            topic=source_topic,
            partition=None,
            offset=None,
            key=raw_key,
            value=raw,
            headers=items,
            group=self.settings.group,
            error=error,
            attempts=0,
            now=datetime.now(UTC),
            teller=teller_of(self._mask, [(raw, lambda: items)]),
        )
        letter = masked(built, self._mask)
        return self.send(topic, encode_letter(letter), key=raw_key, headers=metadata_headers(letter))

    def dead_letters(self, topic: str) -> DeadLetters:
        """Look into a dead-letter topic; its methods block, so call them from a thread."""
        return DeadLetters(topic, self.settings.bootstrap_servers, common_config(self.settings))

    def assignment(self) -> list[TopicPartition]:
        """Partitions of the source topics that this process owns now, sorted."""
        consumers = self._consumers()
        return sorted(tp for c in consumers for tp in c.runtime.owned() if tp.topic in c.spec.topics)

    def stats(self) -> Stats:
        """What this process has done since it started."""
        looks = [c.runtime.look() for c in self._consumers()]
        counters = [c.runtime.counters for c in self._consumers()]
        last = max((c.last_rebalance for c in counters if c.last_rebalance), default=None)
        return Stats(
            handled=sum(c.handled for c in counters),
            failed=sum(c.failed for c in counters),
            retried=sum(c.retried for c in counters),
            dead_lettered=sum(c.dead_lettered for c in counters),
            rebalances=sum(c.rebalances for c in counters),
            last_rebalance=None if last is None else datetime.fromtimestamp(last, UTC),
            in_flight=sum(look.in_flight for look in looks),
            oldest_in_flight=_oldest(looks),
            waiting=sum(look.waiting for look in looks),
            queued=sum(look.queued for look in looks),
            circuit_breakers=tuple(circuit.look() for circuit in self._circuits()),
        )

    def health(self) -> Health:
        """UP, or DOWN for: a polling thread that is stuck, no broker, a stopped partition, a failure.

        Waiting retries, backpressure, no partitions, an open circuit breaker are details of an UP (decision
        14), and so is the oldest record in flight, as long as it has no `timeout` or is within it.
        """
        runner = self._runner
        if runner is None or not (runner.consumers or runner.producer):
            where = "; it runs in the process that this one was forked from" if self._forked else ""
            return Health("DOWN", [f"not running{where}"])
        reasons: list[str] = []
        details: dict[str, Any] = {"partitions": [str(tp) for tp in self.assignment()]}
        if runner.stopping and runner.failure is None:
            reasons.append("stopping")
        if runner.failure is not None:
            reasons.append(f"stopped by {runner.reason}")
        if breakers := [circuit.look() for circuit in runner.circuits]:
            details["circuit_breakers"] = {breaker.name: breaker.details() for breaker in breakers}
        looks = [consumer.runtime.look() for consumer in runner.consumers]
        if (oldest := _oldest(looks)) is not None and oldest.seconds >= _LONG:
            details["oldest_in_flight"] = oldest.details()
        if (call := self._hooks.call) is not None and (seconds := time.monotonic() - call.since) >= _LONG:
            details["hook"] = {"name": call.name, "seconds": round(seconds, 1)}
        for consumer, look in zip(runner.consumers, looks, strict=True):
            if not runner.stopping:
                reasons.extend(consumer.stuck(_STUCK))
            reasons.extend(look.stopped.values())
            reasons.extend(look.overdue)
            if look.map_full:
                details.setdefault("slowed", []).extend(look.map_full)
            if look.metadata is not None:
                details["metadata"] = look.metadata
            if look.careful:
                details.setdefault("careful", {}).update(look.careful)
        details.update(runner.slowed())
        if runner.watch is not None:
            away = runner.watch.away()
            if away >= _AWAY:
                reasons.append(
                    f"no broker has answered for {away:.0f} s at {self.settings.bootstrap_servers}"
                )
            if missing := runner.watch.missing():
                details["missing_topics"] = missing
        return Health("DOWN" if reasons else "UP", reasons, details)

    def _circuits(self) -> list[Circuit]:
        return [] if self._runner is None else self._runner.circuits

    def _consumers(self) -> list[Consumer]:
        return [] if self._runner is None else self._runner.consumers


def _oldest(looks: Iterable[Look]) -> InFlight | None:
    found = [look.oldest for look in looks if look.oldest is not None]
    return max(found, key=lambda record: record.seconds, default=None)


def _check_not_imported() -> None:
    if name := imported_by_command.get():
        raise SettingsError(
            "MODULE:APP",
            f"the import of {name!r} runs its App: put what starts it (app.run()) under"
            ' `if __name__ == "__main__":`',
        )


def _check_place() -> None:
    """Whether `App.run` can work here. Raises RelanceError."""
    instead = "; enter `async with app.running():` in a loop of yours instead"
    if threading.current_thread() is not threading.main_thread():
        raise RelanceError(
            "app.run() takes the main thread, because it listens to SIGTERM and SIGINT; this is thread"
            f" {threading.current_thread().name!r}{instead}"
        )
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # as it should be
        return
    raise RelanceError(
        "app.run() runs a loop of its own, and here one runs already, as in a notebook or an async function"
        f"{instead}"
    )


def _check_client(client: object) -> None:
    """Whether these are settings of the client, by name. Raises SettingsError."""
    if not isinstance(client, Mapping) or not all(isinstance(key, str) for key in client):
        raise SettingsError("client", f"{client!r:.60} are no settings by name: client={{'linger.ms': 5}}")
