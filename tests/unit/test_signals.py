"""SIGTERM and SIGINT, in processes of their own: pytest's is not to be ended."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from relance.signals import Repeats, caught_signals
from waiting import wait_until

HEAD = """
import logging, os, signal, sys, threading, time
from relance.signals import caught_signals
logging.basicConfig(level=logging.INFO, format="%(message)s")
stop = threading.Event()
def on_first(number):
    print("first", number, threading.current_thread().name, flush=True)
    stop.set()
"""

HANGS = """
with caught_signals(on_first):
    print("ready", flush=True)
    stuck = threading.Lock()
    stuck.acquire()
    stuck.acquire()  # as a handler that hangs in C: no bytecode, so no Python signal handler
"""

POLITE = """
with caught_signals(on_first):
    print("ready", flush=True)
    stop.wait()
print("ended", flush=True)
"""


ON_A_LOOP = """
import asyncio
import uvloop

async def main(listen):
    told = asyncio.Event()
    listen()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, told.set)
    print("ready", flush=True)
    await told.wait()
    print("told", flush=True)
    await asyncio.to_thread(stop.wait)

with caught_signals(on_first) as listen, asyncio.Runner(loop_factory=NEW_LOOP) as runner:
    runner.run(main(listen))
print("ended", flush=True)
"""

HANGS_ON_A_LOOP = """
import asyncio
import uvloop

async def main(listen):
    listen()
    print("ready", flush=True)
    stuck = threading.Lock()
    stuck.acquire()
    stuck.acquire()

with caught_signals(on_first) as listen, asyncio.Runner(loop_factory=NEW_LOOP) as runner:
    runner.run(main(listen))
"""


def run(body: str, act: Callable[[subprocess.Popen[str]], None]) -> tuple[int, str, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + body], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        act(process)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def send_twice(second: signal.Signals) -> Callable[[subprocess.Popen[str]], None]:
    def act(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "first 15 relance-signals\n"

        def has_ended() -> bool:
            process.send_signal(second)  # again and again: what comes too soon counts for nothing
            return process.poll() is not None

        wait_until(has_ended)

    return act


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_for_a_stop_and_the_process_ends_by_itself(number: signal.Signals) -> None:
    status, out, err = run(POLITE, lambda process: process.send_signal(number))
    assert (status, out) == (0, f"first {int(number)} relance-signals\nended\n")
    assert f"{number.name}: stopping; once more to stop at once" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_ends_the_process_at_once_even_while_its_main_thread_hangs(number: signal.Signals) -> None:
    status, _, err = run(HANGS, send_twice(number))
    assert status == 128 + number
    assert f"{number.name} again: exiting at once" in err


def test_the_same_signal_twice_within_milliseconds_is_one() -> None:
    """As a wrapper sends it that signals the process, and then its process group."""

    def act(process: subprocess.Popen[str]) -> None:
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "first 15 relance-signals\n"
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGUSR2)  # only now may it end by itself

    patient = "\nimport relance.signals\nrelance.signals._ONE = 60.0\n"  # a busy machine delays signals, too
    body = (
        f"{patient}last = threading.Event()\nsignal.signal(signal.SIGUSR2, lambda *_: last.set())\n{POLITE}"
    )
    # In turns: a signal that reaches another thread does not wake the main one, which alone runs its handler.
    in_turns = "stop.wait()\n    while not last.wait(0.05): pass"
    status, out, err = run(body.replace("stop.wait()", in_turns), act)
    assert (status, out) == (0, "ended\n"), err
    assert "exiting at once" not in err


def test_another_signal_is_a_second_one_however_soon_it_comes() -> None:
    repeats = Repeats()
    assert [repeats.is_one(15, 10.0), repeats.is_one(15, 10.4), repeats.is_one(15, 10.51)] == [
        False, True, False,
    ]  # fmt: skip
    assert not repeats.is_one(2, 10.52)


def test_whoever_hangs_in_logging_with_its_lock_in_hand_does_not_hold_up_the_signals() -> None:
    body = HANGS.replace("    stuck = ", "    logging.getLogger().handlers[0].acquire()\n    stuck = ")
    status, _, _ = run(body, send_twice(signal.SIGTERM))
    assert status == 128 + signal.SIGTERM


def test_a_stop_that_cannot_begin_does_not_deafen_it_for_the_second_signal() -> None:
    body = (
        "\nreal = on_first\ndef on_first(number):\n    real(number)\n    raise RuntimeError('no threads')\n"
    )
    status, _, err = run(body + HANGS, send_twice(signal.SIGTERM))
    assert status == 128 + signal.SIGTERM
    assert "no threads" in err


def test_other_signals_are_not_its_business() -> None:
    body = "\nseen = []\nsignal.signal(signal.SIGUSR1, lambda n, f: os.write(1, b'usr1\\n'))\n" + POLITE

    def act(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        assert process.stdout.readline() == "usr1\n"
        process.send_signal(signal.SIGTERM)

    status, out, _ = run(body, act)
    assert status == 0
    assert out.endswith("ended\n")


LOOPS = pytest.mark.parametrize("new_loop", ["asyncio.new_event_loop", "uvloop.new_event_loop"])


@LOOPS
@pytest.mark.parametrize("listens", [True, False], ids=["", "while the loop has the descriptor"])
def test_on_a_loop_our_signals_and_those_of_others_are_both_heard(new_loop: str, listens: bool) -> None:
    body = ON_A_LOOP.replace("NEW_LOOP", new_loop)
    if not listens:
        body = body.replace("    listen()\n", "")

    def act(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGUSR2)
        assert process.stdout is not None
        assert process.stdout.readline() == "told\n"
        process.send_signal(signal.SIGTERM)

    status, out, err = run(body, act)
    assert (status, out) == (0, "first 15 relance-signals\nended\n"), err


@LOOPS
def test_the_second_ends_the_process_at_once_even_while_a_handler_hangs_on_a_loop(new_loop: str) -> None:
    status, _, err = run(HANGS_ON_A_LOOP.replace("NEW_LOOP", new_loop), send_twice(signal.SIGTERM))
    assert status == 128 + signal.SIGTERM, err


def test_afterwards_all_is_as_it_was() -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    threads = threading.active_count()
    with caught_signals(lambda number: None):
        assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] != handlers
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads


def test_only_the_main_thread_may_enter_and_the_refusal_leaves_nothing_open() -> None:
    found: list[BaseException] = []

    def enter() -> None:
        try:
            with caught_signals(lambda number: None):
                pass
        except ValueError as error:
            found.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert len(found) == 1
    gc.collect()  # a socket left open would warn now, and a warning is an error
