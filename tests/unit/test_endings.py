"""What ends a process and came out of a handler: the handler's doing, or a signal's."""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from relance.endings import of_the_handler


@pytest.fixture(autouse=True)
def handlers_restored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


def caught(action: Callable[[], object]) -> BaseException:
    try:
        action()
    except BaseException as error:
        return error
    raise AssertionError("it raised nothing")


def raise_(error: BaseException) -> None:
    raise error


def leave(number: int, frame: object) -> None:
    sys.exit(0)


class Leaves:
    def __call__(self, number: int, frame: object) -> None:
        sys.exit(0)

    def leave(self, number: int, frame: object) -> None:
        sys.exit(0)


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(0),
        KeyboardInterrupt(),
        GeneratorExit(),
        BaseExceptionGroup("g", [SystemExit(), ValueError()]),
        asyncio.CancelledError(),
    ],
)
def test_what_a_handler_raises_is_its_own_doing(error: BaseException) -> None:
    assert of_the_handler(caught(lambda: raise_(error)))


def test_an_error_ends_no_process() -> None:
    assert not of_the_handler(caught(lambda: raise_(ValueError("x"))))


def test_a_ctrl_c_is_not() -> None:
    assert not of_the_handler(caught(lambda: signal.raise_signal(signal.SIGINT)))


def test_a_ctrl_c_that_a_handler_passes_on_as_something_else_is_not() -> None:
    def handler() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            sys.exit(0)

    def in_a_group() -> None:
        raise BaseExceptionGroup("g", [caught(lambda: signal.raise_signal(signal.SIGINT))])

    assert not of_the_handler(caught(handler))
    assert not of_the_handler(caught(in_a_group))


@pytest.mark.parametrize(
    "installed",
    [leave, functools.partial(leave), Leaves(), Leaves().leave],
    ids=["function", "partial", "object", "method"],
)
def test_what_a_signal_handler_of_the_program_makes_of_sigterm_is_not(
    installed: Callable[..., None],
) -> None:
    signal.signal(signal.SIGTERM, installed)
    assert not of_the_handler(caught(lambda: signal.raise_signal(signal.SIGTERM)))
    assert of_the_handler(caught(sys.exit))


def test_on_another_thread_no_signal_is_ever_raised() -> None:
    found: list[bool] = []

    def work() -> None:
        found.append(of_the_handler(caught(lambda: raise_(KeyboardInterrupt()))))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True]
