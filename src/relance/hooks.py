"""The users' hooks; the promise: none runs on a polling thread or a worker's, and none can break or hold one.

They run in order on one thread of their own. `revoked` is waited for (its point is to act before the
partitions are gone), until the drain's deadline; a hook that raises is logged and counted. The thread is a
daemon, which an executor's isn't: a hook that hangs must not keep the process from ending.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from relance.dead_letters.errortext import trace
from relance.decoding import code_of
from relance.errors import SettingsError
from relance.forks import forgotten_by_children, leave
from relance.hangs import HookCall
from relance.policies.masking import Mask
from relance.record import TopicPartition
from relance.stats import CircuitBreakerOpen
from relance.text import indented, name_of

__all__ = ["BreakerHook", "Hook", "Hooks", "checked_hook"]

_log = logging.getLogger("relance.rebalance")

Hook = Callable[[list[TopicPartition]], None]
BreakerHook = Callable[[CircuitBreakerOpen], None]
_Call = tuple[Callable[[], None], threading.Event]
H = TypeVar("H", bound=Callable[..., Any])


def checked_hook(key: str, hook: H) -> H:
    """The hook, if it can be called as one. Raises SettingsError, naming the decorator and the hook."""
    given: object = hook
    if not callable(given):
        raise SettingsError(key, f"{given!r:.100} is no function: write @app.{key} above a function")
    name = name_of(hook)
    code = code_of(hook)
    if inspect.iscoroutinefunction(code):
        problem = (
            f"{name} is async, and nobody would await it: hooks run on a thread of their own; write def, and"
            " to reach a loop use asyncio.run_coroutine_threadsafe"
        )
        raise SettingsError(key, problem)
    if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
        raise SettingsError(key, f"{name} has a yield in it, so calling it would do nothing; return instead")
    try:
        inspect.signature(hook).bind(None)
    except TypeError as error:
        raise SettingsError(key, f"{name} is called with one argument, and {error}") from error
    except ValueError:
        pass  # a function of C's may not say what it takes
    return hook


class Hooks:
    """Hooks of an application, and the log lines that the course greps for."""

    def __init__(self, mask: Mask | None = None) -> None:
        self.on_assigned: list[Hook] = []
        self.on_revoked: list[Hook] = []
        self.on_lost: list[Hook] = []
        self.on_breaker_open: list[BreakerHook] = []
        self.call: HookCall | None = None
        """The hook that runs now."""
        self.failures = 0
        """How many hook calls have raised."""
        self._forked = False
        """Whether this process was forked by a hook."""
        self._numbers = itertools.count()
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._mask = mask or Mask()

    def start(self) -> None:
        """Start their thread, if there are any.

        Started by the first call, it would stay on the core to which the thread of that call is bound: see
        `cores`.
        """
        forgotten_by_children(self.forget)
        with self._lock:
            if self.on_assigned or self.on_revoked or self.on_lost or self.on_breaker_open:
                self._start()

    def assigned(self, tps: list[TopicPartition]) -> None:
        """Partitions are ours now."""
        _log.info("[REBALANCE] Partitions assigned: %s", _names(tps))
        self._tell(self.on_assigned, tps)

    def revoked(self, tps: list[TopicPartition], timeout: float) -> None:
        """Partitions are about to go: what ran is drained, nothing is committed yet."""
        _log.info("[REBALANCE] Partitions revoked: %s", _names(tps))
        if not self.on_revoked:
            return
        if not self._tell(self.on_revoked, tps).wait(timeout):
            _log.warning("[REBALANCE] on_revoked still runs after %.1f s: going on without it", timeout)

    def lost(self, tps: list[TopicPartition]) -> None:
        """Partitions are gone already, to another owner."""
        _log.warning("[REBALANCE] Partitions lost: %s", _names(tps))
        self._tell(self.on_lost, tps)

    def breaker_opened(self, opened: CircuitBreakerOpen) -> None:
        """A circuit breaker has opened; it has logged so itself."""
        self._submit(self.on_breaker_open, lambda: opened, "hook %s raised")

    def forget(self) -> None:
        """In a forked child: it ends where its hook returns or raises."""
        self._forked = True

    def close(self) -> None:
        """Take no more calls; what is waiting its turn is dropped."""
        with self._lock:
            self._closed = True
            self._calls.put(None)

    def _tell(self, hooks: Sequence[Hook], tps: list[TopicPartition]) -> threading.Event:
        # A list of its own for each, in case one changes it.
        return self._submit(hooks, lambda: sorted(tps), "[REBALANCE] hook %s raised")

    def _submit(
        self, hooks: Sequence[Callable[[Any], None]], given: Callable[[], Any], problem: str
    ) -> threading.Event:
        """The event is set when all of `hooks` have returned, and at once when none will be called."""
        done = threading.Event()
        with self._lock:
            if not hooks or self._closed:
                done.set()
                return done
            self._start()
            self._calls.put((partial(self._call, list(hooks), given, problem), done))
        return done

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="relance-hooks", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while (called := self._calls.get()) is not None:
            call, done = called
            if not self._closed:
                call()
            done.set()

    def _call(self, hooks: list[Callable[[Any], None]], given: Callable[[], Any], problem: str) -> None:
        for hook in hooks:
            name = name_of(hook)
            self.call = HookCall(next(self._numbers), name, time.monotonic())
            try:
                _refuse_unawaited(hook(given()))
            except BaseException as error:  # noqa: BLE001  not even sys.exit may decide over partitions
                if self._forked:
                    leave(error)
                self.failures += 1
                self._log_failure(problem, name, error)
            finally:
                self.call = None
            if self._forked:
                leave()

    def _log_failure(self, problem: str, name: str, error: BaseException) -> None:
        if self._mask.hides_nothing:
            _log.error(problem, name, exc_info=error)
        else:
            _log.error(f"{problem}:\n%s", name, indented(self._mask.text(trace(error))))


def _refuse_unawaited(answer: object) -> None:
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError(
            f"it returned what has to be awaited ({type(answer).__name__}), so it has done nothing"
        )


def _names(tps: list[TopicPartition]) -> str:
    return ", ".join(str(tp) for tp in sorted(tps)) or "none"
