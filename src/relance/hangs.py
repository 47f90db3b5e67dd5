"""Handlers and hooks that take very long: a warning once for each record, or for each event of a hook.

Promise: what hangs does not do so in silence. Nothing is ended here: that is for `timeout=`, or a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from relance.burst import BurstLog
from relance.clock import Clock
from relance.engine.lanes import Run
from relance.stats import InFlight

__all__ = ["Hangs", "Held", "HookCall"]


class Held(NamedTuple):
    """A record with its handler, and the run that it came with."""

    run: Run
    done: int
    record: InFlight


class HookCall(NamedTuple):
    """A hook at work. `number` counts the calls; `since` is on the monotonic clock."""

    number: int
    name: str
    since: float


class Hangs:
    """What was told; `after` in seconds, 0 tells nothing. Called by one thread."""

    def __init__(self, clock: Clock, after: float) -> None:
        self.after = after
        self._clock = clock
        self._log = BurstLog("relance.hang", clock)
        self._told: set[tuple[Run, int]] = set()
        self._told_hook = -1

    def look(self, held: Sequence[Held], timeout: float | None) -> None:
        """Tell of those of `held` that have been with a handler for too long; `timeout` is the handler's."""
        if not self.after:
            return
        late = {(one.run, one.done): one.record for one in held if one.record.seconds >= self.after}
        told, self._told = self._told, set(late)
        for key, record in late.items():
            if key not in told:
                self._log.warning(
                    "handler %s has been at %s-%d, offset %d, for %.0f s (attempt %d): %s",
                    lambda record=record: (  # type: ignore[misc]  # mypy cannot infer a default's type
                        record.handler,
                        record.topic,
                        record.partition,
                        record.offset,
                        record.seconds,
                        record.attempt,
                        "it has no timeout=, so nothing ends it, and what stands behind it waits"
                        if timeout is None
                        else f"its timeout is {timeout:g} s",
                    ),
                )

    def look_at_hook(self, call: HookCall | None) -> None:
        """The same for the hook that runs now."""
        if not self.after or call is None or call.number == self._told_hook:
            return
        seconds = self._clock.monotonic() - call.since
        if seconds >= self.after:
            self._told_hook = call.number
            self._log.warning(
                "hook %s has been at one event for %.0f s: all hooks behind it wait, but no partition does",
                lambda: (call.name, seconds),
            )
