"""The engine of one consumer behind one lock, and what is counted beside it.

Promise: the engine is only touched with the lock held; whoever waits waits for one of its two conditions.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from relance.clock import Clock
from relance.contracts import Counters, OnFailure, Plan
from relance.engine.assignment import Assignment
from relance.engine.engine import Engine
from relance.engine.lanes import Run

__all__ = ["Monitor", "log_stopped"]

_handoff_log = logging.getLogger("relance.handoff")


class Monitor:
    """What the rooms of a runtime share. `on_failure` ends the application."""

    def __init__(
        self,
        plan: Plan,
        *,
        clock: Clock,
        on_failure: OnFailure,
        condition: Callable[[threading.Lock], threading.Condition],
    ) -> None:
        self.plan = plan
        self.clock = clock
        self.on_failure = on_failure
        self.counters = Counters()
        self.engine = Engine(plan.ordering, plan.limits, batch=plan.batch, owner=plan.owner)
        self.lock = threading.Lock()
        self.work = threading.Condition(self.lock)
        """Something may start, or all stops."""
        self.changed = condition(self.lock)
        """Something ended: what a drain, and a poller without room, wait for."""
        self.halted = False
        """Nothing more is started, for good."""

    # -- with the lock held ------------------------------------------------------------------------

    def halt(self) -> list[Assignment]:
        """Start nothing more, of whatever partition, for good."""
        self.halted = True
        return self.engine.drain(list(self.engine.assignments))

    def count_run(self, run: Run) -> None:
        """What a run has handled, when it comes back."""
        if run.lane.assignment.closed:
            return
        self.counters.handled += run.done - len(run.handed or ())

    def give_back(self, run: Run) -> None:
        """The worker is done with it, whether all of it is handled or not."""
        self.count_run(run)
        self.engine.finish(run)
        self.changed.notify_all()

    # -- without it --------------------------------------------------------------------------------

    def stop(self, assignment: Assignment, offset: int, reason: str, until: str) -> None:
        """Start nothing of this partition, for a `reason` that is told; `until` says when it goes on."""
        reason = self.plan.mask.text(reason)
        with self.lock:
            if assignment.closed:
                return
            told = assignment.stopped is not None
            self.engine.stop(assignment, f"{assignment.tp} is stopped at offset {offset}: {reason}", offset)
            self.changed.notify_all()
        if not told:
            log_stopped(f"{assignment.tp} stops at offset {offset}: {reason}; {until}")


def log_stopped(reason: str) -> None:
    """A partition stops."""
    _handoff_log.error("%s", reason)
