"""The life of an application: start, work, fail, stop.

Promises: nothing starts before a broker answers, all topics are there and all tables are read; a stop drains,
commits and leaves within one shared deadline; a handler that hangs cannot keep the process from ending.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from relance.circuit import Circuit, make_circuits
from relance.clock import SystemClock
from relance.consumer import Consumer
from relance.contracts import Told
from relance.cores import SharedCore
from relance.endings import of_the_handler
from relance.errors import BrokerUnavailableError, HandlerExitError, RelanceError, TopicMissingError
from relance.forks import forgotten_by_children, leave
from relance.hangs import Hangs
from relance.hooks import Hooks
from relance.kafka.admin import Admin
from relance.kafka.config import common_config
from relance.kafka.fitting import FittingProducer
from relance.kafka.limits import TopicLimits
from relance.kafka.table import Table
from relance.kafka.watch import TopicWatch
from relance.needs import TABLE_CONFIGS
from relance.outgoing import LARGEST, NOTHING_HIDDEN, told_with
from relance.policies.masking import Mask
from relance.settings import EventLoop, Settings
from relance.spec import ConsumerSpec
from relance.text import indented, one_line, shown
from relance.workers.loop import LoopWorker

__all__ = ["Runner"]

_log = logging.getLogger("relance")

_NOT_SHARED = (
    "share_core does nothing here: it takes App.run and one consumer, whose handler is async, or sync with"
    " concurrency 1"
)

_HANDOFF_TIMEOUT = 15.0  # seconds until a hand-off is tried again; it is never given up
_LAST_WAIT = 1.0  # seconds for workers to end when all is drained or given up
_MOST_NAMED = 5  # records that the line about handlers left behind names
_ABANDONED = 70  # exit status: a handler was still running at the deadline (EX_SOFTWARE)


class Runner:
    """One run of an application's consumers and tables; it runs once."""

    in_memory = False
    """Whether it is the test kit's."""

    def __init__(
        self,
        settings: Settings,
        specs: Iterable[ConsumerSpec],
        tables: Iterable[Table],
        hooks: Hooks,
        *,
        owns_process: bool = False,
        mask: Mask = NOTHING_HIDDEN,
    ) -> None:
        self.settings = settings
        self.consumers: list[Consumer] = []
        self.producer: FittingProducer | None = None
        """For what users send; hand-offs have another, so that neither's deadline is the other's."""
        self.watch: TopicWatch | None = None
        self.failure: Exception | None = None
        """The first error that stopped it."""
        self.reason: str | None = None
        """The same as it may be told, in one line."""
        self._specs = list(specs)
        wanted = [(spec.breaker, spec.shape.name) for spec in self._specs]
        self._circuits = make_circuits(wanted, clock=SystemClock(), on_open=hooks.breaker_opened)
        self._tables = list(tables)
        self._hooks = hooks
        self._hangs = Hangs(SystemClock(), settings.hang_warning)
        self._handoffs: FittingProducer | None = None
        self._owns_process = owns_process
        self._mask = mask
        self._forked = False
        """This process is another one, forked from the one that runs it."""
        self._start_ended = threading.Event()
        self._working = False
        self._worked = threading.Event()
        self._stop_lock = threading.Lock()
        self._stopper: threading.Thread | None = None

    @property
    def circuits(self) -> list[Circuit]:
        """The circuit breakers, each once."""
        return list(dict.fromkeys(circuit for circuit in self._circuits if circuit is not None))

    def slowed(self) -> dict[str, dict[str, str]]:
        """What holds this process up that is not its own to mend, as details for health."""
        found: dict[str, dict[str, str]] = {}
        for consumer in self.consumers:
            for name, told in consumer.slowed().items():
                found.setdefault(name, {}).update(told)
        for producer in (self.producer, self._handoffs):
            if producer is not None and (told := producer.throttled()):
                found.setdefault("throttled", {}).update(told)
        return found

    @property
    def stopping(self) -> bool:
        """Whether a stop has begun."""
        return self._stopper is not None

    def forget(self) -> None:
        """In a forked child."""
        self._forked = True

    def start(self) -> None:
        """Start everything but the workers. Blocks; raises BrokerUnavailableError, TopicMissingError."""
        forgotten_by_children(self.forget)
        try:
            self._start()
        finally:
            self._start_ended.set()

    def _start(self) -> None:
        settings = self.settings
        _log.info(
            "starting: group %s, brokers %s (from %s)",
            settings.group,
            settings.bootstrap_servers,
            settings.servers_from,
        )
        common = common_config(settings)
        admin = Admin(settings.bootstrap_servers, common)
        topics = [topic for spec in self._specs for topic in spec.all_topics]
        self._wait_for_topics(admin, topics)
        limits = TopicLimits(common, [topic for spec in self._specs for topic in spec.written])
        limits.learn(admin)
        self.producer = FittingProducer(
            common, name="producer", timeout=settings.send_timeout, limits=limits, on_failure=self.fail
        )
        self._handoffs = FittingProducer(
            common,
            name="handoff",
            timeout=_HANDOFF_TIMEOUT,
            limits=limits,
            ordered=False,  # one that failed is written again later, whatever came after it
            largest=LARGEST,
            on_failure=self.fail,
        )
        for table in self._tables:
            table.start(common, self.producer, settings.start_timeout)
        self.watch = TopicWatch(
            admin,
            topics,
            self._topic_seen,
            self._look,
            self.fail,
            limits=limits,
            on_tick=self._look_for_hangs,
        )
        self.watch.remember()
        owner = secrets.token_hex(4)
        self.consumers = [
            Consumer(
                spec,
                settings,
                hooks=self._hooks,
                producer=self._handoffs,
                watch=self.watch,
                limits=limits,
                on_failure=self.fail,
                owner=owner,
                circuit=circuit,
                place=place,
            )
            for place, (spec, circuit) in enumerate(zip(self._specs, self._circuits, strict=True), 1)
        ]
        self.watch.start()
        self._hooks.start()
        for consumer in self.consumers:
            consumer.start()

    def work(self, on_loop: Callable[[], None]) -> None:
        """Run the workers on this, the main, thread: a single sync one directly, else on a loop.

        `on_loop` is called on the loop before anything else.
        """
        self._working = True
        try:
            with self._shared_core():
                if len(self.consumers) == 1 and not isinstance(self.consumers[0].worker, LoopWorker):
                    self.consumers[0].worker.run()
                else:
                    with asyncio.Runner(loop_factory=_loop_factory(self.settings.event_loop)) as runner:
                        try:
                            runner.run(self._work_on_loop(on_loop))
                        except BaseException as error:
                            if self._forked:  # a handler's child has awaited something
                                leave(error)
                            if not of_the_handler(error):
                                raise
                            self._ended_by_a_task(error)
        finally:
            self._worked.set()

    def _ended_by_a_task(self, error: BaseException) -> None:
        """A task that some handler has started ended the loop; whose it was is known if only one is out."""
        if isinstance(self.failure, HandlerExitError):
            return  # uvloop has let the handler that waits for the task hear of it first
        out = [(consumer.runtime, run) for consumer in self.consumers for run in consumer.runtime.out()]
        if not out:
            raise error
        if len(out) == 1:
            [(runtime, run)] = out
            runtime.ended_by(run, error)
            return
        for runtime in dict.fromkeys(runtime for runtime, _ in out):
            runtime.ended_somewhere(error)

    def work_on(self, loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[None]]:
        """Start the workers on a loop that runs already; sync ones get a thread each."""
        if self.settings.share_core:  # the caller's loop, and all that its thread starts, would be bound
            _log.warning(_NOT_SHARED)
        tasks = [loop.create_task(self._worker(consumer)) for consumer in self.consumers]
        for task in tasks:
            task.add_done_callback(self._worker_ended)
        return tasks

    def fail(self, error: Exception, told: Told | None = None) -> None:
        """Stop because of `error`; any thread may call it. `told` is what may be written about it."""
        if self.failure is None:
            told = told or self._told(error)
            self.failure, self.reason = error, one_line(told.reason)
            if told.trace:
                _log.error("what stops all, from its beginning:\n%s", indented(told.trace))
            _log.critical("stopping: %s", self.reason)
        self.stop()

    def _told(self, error: Exception) -> Told:
        """What may be written where no record is behind it: of a defect, also where it is."""
        teller = told_with(self._mask)
        defect = error.__traceback__ is not None and not isinstance(error, RelanceError)
        return Told(teller.failure(error), teller.trace(error) if defect else "")

    def stop(self) -> None:
        """Begin to stop, once; returns at once. Any thread may call it."""
        if self._forked:
            return
        with self._stop_lock:
            if self._stopper is None:
                self._stopper = threading.Thread(target=self._stop, name="relance-stop", daemon=True)
                self._stopper.start()

    async def finish_on_loop(self, tasks: list[asyncio.Task[None]]) -> None:
        """`finish`, on the loop that has the tasks of `work_on`; a handler that hangs is left behind."""
        await asyncio.to_thread(self.finish)
        if not tasks:
            return
        _, hanging = await asyncio.wait(tasks, timeout=_LAST_WAIT)
        for task in hanging:
            self._log_left("going on")
            task.cancel()

    def finish(self) -> None:
        """Stop, and wait for the end of it; also after a start that failed half-way."""
        if self._forked:
            return
        self.stop()
        assert self._stopper is not None
        self._stopper.join()

    # -- inside ------------------------------------------------------------------------------------

    def _wait_for_topics(self, admin: Admin, topics: Sequence[str]) -> None:
        """Ask until a broker answers all: the one that answers first may be gone a moment later."""
        deadline = time.monotonic() + self.settings.start_timeout
        told = False
        while True:
            left = deadline - time.monotonic()
            try:
                admin.ping(min(1.0, max(0.1, left)))
                for table in self._tables:
                    admin.ensure_topic(table.topic, 1, TABLE_CONFIGS)
                self._need(admin, topics)
                return
            except BrokerUnavailableError as error:
                if self.stopping:
                    raise BrokerUnavailableError(f"stopped while waiting for a broker: {error}") from error
                if time.monotonic() >= deadline:
                    waited = f"gave up after {self.settings.start_timeout:g} s"
                    raise BrokerUnavailableError(f"{waited}: {error}") from error
                if not told:
                    told = True
                    _log.error(
                        "no Kafka broker answers at %s (from %s); trying for %.0f s more",
                        self.settings.bootstrap_servers,
                        self.settings.servers_from,
                        deadline - time.monotonic(),
                    )

    def _need(self, admin: Admin, topics: Iterable[str]) -> None:
        missing, partitions = [], 1
        for topic in dict.fromkeys(topics):
            try:
                partitions = max(partitions, admin.identity(topic).partitions)
            except TopicMissingError:
                missing.append(topic)
        if missing and not self.settings.create_topics:
            # As many partitions as those that are there, since a retry topic is like its source.
            raise TopicMissingError(
                *missing, partitions=partitions, bootstrap_servers=self.settings.bootstrap_servers
            )
        for topic in missing:
            admin.ensure_topic(topic, -1)
            _log.warning("topic %s was missing; made it with the broker's default partitions", topic)

    def _topic_seen(self, topic: str, topic_id: str) -> None:
        for consumer in self.consumers:
            consumer.topic_seen(topic, topic_id)

    def _look_for_hangs(self) -> None:
        for consumer in self.consumers:
            consumer.look_for_hangs()
        self._hangs.look_at_hook(self._hooks.call)

    def _look(self, admin: Admin) -> None:
        for consumer in self.consumers:
            consumer.look(admin)

    @contextlib.contextmanager
    def _shared_core(self) -> Iterator[None]:
        core = SharedCore() if self.settings.share_core else None
        if core is not None and (len(self.consumers) != 1 or not self.consumers[0].share(core)):
            _log.warning(_NOT_SHARED)
            core = None
        with contextlib.nullcontext() if core is None else core.joined():
            yield

    async def _work_on_loop(self, on_loop: Callable[[], None]) -> None:
        on_loop()
        await asyncio.gather(*(self._worker(consumer) for consumer in self.consumers))

    async def _worker(self, consumer: Consumer) -> None:
        worker = consumer.worker
        if isinstance(worker, LoopWorker):
            await worker.run()
            return
        # A thread of its own, and a daemon: a handler that hangs must not keep the process from ending.
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def work() -> None:
            try:
                worker.run()
                result: BaseException | None = None
            except BaseException as error:  # noqa: BLE001  carried to whoever waits for the worker
                result = error
            with contextlib.suppress(RuntimeError):  # the loop is gone: so is whoever waited
                loop.call_soon_threadsafe(_settle, ended, result)

        threading.Thread(target=work, name="relance-worker", daemon=True).start()
        await ended

    def _worker_ended(self, task: asyncio.Future[None]) -> None:
        if task.cancelled():
            if not self.stopping:
                self.fail(RuntimeError("a worker was cancelled from outside, and nothing stops"))
        elif (error := task.exception()) is not None:
            self.fail(error if isinstance(error, Exception) else RuntimeError(shown(error)))

    def _stop(self) -> None:
        self._start_ended.wait()  # it gives up soon after it sees that a stop has begun
        self._shut_down()
        if self._owns_process and self._working and not self._worked.wait(_LAST_WAIT):
            # A thread cannot be killed and a coroutine need not end: what it does is not committed.
            self._log_left("exiting")
            logging.shutdown()
            os._exit(_ABANDONED)
        _log.info("stopped")

    def _log_left(self, how: str) -> None:
        late = [one for consumer in self.consumers for one in consumer.runtime.late]
        late.sort(key=lambda one: one.seconds, reverse=True)
        told = [
            f"{one.handler} at {one.topic}-{one.partition}, offset {one.offset}, for {one.seconds:.0f} s"
            for one in late[:_MOST_NAMED]
        ]
        more = f" and {len(late) - _MOST_NAMED} more" if len(late) > _MOST_NAMED else ""
        _log.error(
            "a handler is still running after the drain deadline: %s without it%s",
            how,
            f" (at the deadline: {'; '.join(told)}{more})" if told else "",
        )

    def _shut_down(self) -> None:
        deadline = time.monotonic() + self.settings.drain_timeout
        if self.watch is not None:
            self.watch.stop()
        # All at once: one that drains for long must not leave another starting records until the deadline.
        with concurrent.futures.ThreadPoolExecutor(max(1, len(self.consumers))) as pool:
            closed = list(pool.map(lambda consumer: consumer.stop(deadline), self.consumers))
        for consumer, in_time in zip(self.consumers, closed, strict=True):
            if not in_time:
                _log.warning("a client of %s did not close in time", ", ".join(consumer.spec.topics))
        for producer in (self._handoffs, self.producer):
            if producer is not None:
                left = producer.close(max(0.5, deadline - time.monotonic()))
                if left:
                    _log.warning("%d records were still unacknowledged when the producer was closed", left)
        for table in self._tables:
            table.stop()
        self._hooks.close()
        if self.watch is not None and not self.watch.join(_LAST_WAIT):
            _log.debug("a question about the topics is still without an answer")


def _loop_factory(event_loop: EventLoop) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if event_loop == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        if event_loop == "uvloop":
            raise
        return None
    return uvloop.new_event_loop


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
