"""Processes by identity: never a stranger's, and never a zombie."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from relance.broker.processes import (
    Identity,
    alive,
    identify,
    send,
    terminate,
    uninterrupted,
    wait_gone,
)
from waiting import wait_until

IGNORES_TERM = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); input()"
)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process that waits, and says when it is up."""
    code = "print('up', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_a_process_is_itself_as_long_as_it_lives(child):
    who = identify(child.pid)
    assert who is not None
    assert alive(who)
    child.kill()
    assert wait_gone(who, 5.0)
    assert not alive(who)


def test_a_pid_that_came_to_another_process_is_nobody_and_is_not_signalled(child):
    who = identify(child.pid)
    stranger = replace(who, started="an earlier boot:1")
    assert not alive(stranger)
    assert not send(stranger, signal.SIGKILL)
    assert terminate(stranger, 1.0)
    assert alive(who)


def test_a_zombie_has_ended(child):
    who = identify(child.pid)
    os.kill(child.pid, signal.SIGKILL)
    wait_until(lambda: not alive(who), 5.0, "the child to count as gone, though nobody has buried it")


def test_a_process_whose_other_threads_run_on_has_not_ended():
    code = (
        "import ctypes, threading; threading.Thread(target=input).start();"
        "print('up', flush=True); ctypes.PyDLL(None).pthread_exit(None)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        stat = Path(f"/proc/{process.pid}/stat")
        wait_until(lambda: not stat.exists() or ") Z " in stat.read_text(), 5.0, "the first thread's end")
        assert identify(process.pid) is not None
        process.kill()


def test_nobody_has_a_pid_that_is_not_in_use():
    assert identify(2**22 + 1) is None


def test_terminating_is_polite_first(child):
    assert terminate(identify(child.pid), 5.0)


def test_terminating_tells_when_it_took_force():
    with subprocess.Popen(
        [sys.executable, "-c", IGNORES_TERM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        who = identify(process.pid)
        assert not terminate(who, 0.05)
        assert not alive(who)


def test_interrupts_are_held_back_while_a_child_is_born_and_come_after():
    came = []
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        for one in before:
            signal.signal(one, lambda number, _frame: came.append(number))
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert came == []
            # A child must be able to be stopped, so the signals are not blocked for it.
            status = subprocess.run(["sleep", "60"], timeout=60, check=False, preexec_fn=_end_myself)
        assert status.returncode == -signal.SIGTERM
        assert came == [signal.SIGTERM, signal.SIGINT]
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _end_myself() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def test_an_identity_survives_being_written_down():
    who = identify(os.getpid())
    assert Identity(**{"pid": who.pid, "started": who.started}) == who
