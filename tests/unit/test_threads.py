"""Sync handlers on several threads: what becomes of `run` when one of them cannot start, or ends."""

from __future__ import annotations

import threading

import pytest

from relance.decoding import decoder_for, handler_shape
from relance.errors import RelanceError
from relance.workers.single import SingleCall
from relance.workers.threads import ThreadsWorker
from waiting import wait_until
from world import Member


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
