"""What a forked child forgets, and how it ends; in processes of their own, for pytest's has threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAD = """
import asyncio, gc, os, signal, sys, threading
from relance.forks import forgotten_by_children, leave
def end_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
class Thing:
    def forget(self):
        print("forgotten", flush=True)
        raise RuntimeError("nobody hears of it")
thing = Thing()
"""


def run(body: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HEAD + body], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_child_forgets_what_lives_once_and_its_own_child_does_not_forget_it_again() -> None:
    body = """
gone = Thing()
for _ in range(2):
    forgotten_by_children(thing.forget)
forgotten_by_children(gone.forget)
del gone
gc.collect()
pid = os.fork()
if pid == 0:
    inner = os.fork()
    os._exit(end_of(inner) if inner else 7)
print(end_of(pid))
"""
    assert run(body) == ["forgotten", "7"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("None", 0),
        ("SystemExit()", 0),
        ("SystemExit(3)", 3),
        ("SystemExit('a text')", 1),
        ("ValueError('x')", 1),
        ("KeyboardInterrupt()", 1),
    ],
)
def test_a_child_leaves_with_the_status_of_its_error(error: str, status: int) -> None:
    assert run(f"pid = os.fork()\nif pid == 0: leave({error})\nprint(end_of(pid))") == [str(status)]


def test_a_signal_for_the_child_is_never_the_parent_s_not_even_at_once() -> None:
    body = """
from relance.signals import caught_signals
told = []
with caught_signals(told.append):
    ends = []
    for _ in range(200):
        pid = os.fork()
        if pid == 0:
            signal.pause()
        os.kill(pid, signal.SIGTERM)
        ends.append(end_of(pid))
    print(set(ends), told)
"""
    assert run(body) == ["{-15}", "[]"]


def test_a_child_writes_to_no_loop_of_its_parent() -> None:
    body = """
async def main():
    loop, told = asyncio.get_running_loop(), []
    loop.add_signal_handler(signal.SIGUSR1, told.append, 1)
    forgotten_by_children(thing.forget)
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(0)
    end_of(pid)
    for _ in range(5):  # what was written is there already
        await asyncio.sleep(0)
    print(told)
asyncio.run(main())
"""
    assert run(body) == ["forgotten", "[]"]


def test_where_nothing_of_ours_runs_a_fork_is_as_ever() -> None:
    body = """
before = signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(signal.SIG_BLOCK, [])
pid = os.fork()
if pid == 0:
    now = signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    os._exit(now != before)
print(end_of(pid), signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
    assert run(body) == ["0", "set()"]
