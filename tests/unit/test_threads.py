"""Sync handlers on several threads: what becomes of `run` when one of them cannot start, or ends."""

from __future__ import annotations

import threading

import pytest

from relance.decoding import decoder_for, handler_shape
from relance.engine.lanes import Run
from relance.errors import RelanceError
from relance.workers.single import SingleCall
from relance.workers.threads import ThreadsWorker
from waiting import wait_until
from world import ORDERS, Member, record


def handler(value: int) -> None:
    """Nothing."""


def test_a_thread_that_cannot_be_started_ends_the_worker_with_the_number_and_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def start_three(thread: threading.Thread) -> None:
        if len(started) == 3:
            raise RuntimeError("can't start new thread")
        start(thread)
        started.append(thread)

    member = Member.in_real_time()
    shape = handler_shape(handler)
    decoding = decoder_for(shape.annotation)
    worker = ThreadsWorker(
        member.runtime, lambda: SingleCall(member.runtime, handler, shape, decoding), concurrency=5000
    )
    monkeypatch.setattr(threading.Thread, "start", start_three)
    with pytest.raises(RelanceError, match=r"thread 4 of concurrency=5000 cannot be started.*ulimit -u"):
        worker.run()
    monkeypatch.undo()
    member.runtime.drain(0.0)
    wait_until(lambda: not any(thread.is_alive() for thread in started))


class DefectError(Exception):
    """Of ours: no handler's."""


def test_what_a_thread_ends_with_ends_the_run_and_what_it_had_is_given_back() -> None:
    member = Member.in_real_time(ordering="none")

    class Broken:
        def handle(self, run: Run, until: float) -> bool:
            raise DefectError

    worker = ThreadsWorker(member.runtime, Broken, concurrency=2)
    member.runtime.received("source", ORDERS, [record(0), record(1)])
    with pytest.raises(DefectError):
        worker.run()
    wait_until(lambda: member.runtime.look().in_flight == 0)
    assert member.runtime.look().queued == 2
    assert member.runtime.counters.handled == 0
    member.runtime.drain(0.0)
