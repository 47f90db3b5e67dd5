"""Handlers that worker processes import: each value says what becomes of its record."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relance.errors import Reject, SendError, TransientError
from relance.record import Record


class OddError(TransientError):
    """Its constructor wants what pickle does not keep."""

    def __init__(self, *, code: int) -> None:
        super().__init__("code", code)
        self.code = code
        self.lock = threading.Lock()


class HostileError(Exception):
    def __reduce__(self) -> Any:
        return (eval, ("1/0",))

    def __str__(self) -> str:
        raise ValueError("no text")


def local_error() -> Exception:
    class HereOnlyError(TransientError):
        pass

    return HereOnlyError("nobody else knows my class")


def caused() -> Exception:
    error = ValueError("bad")
    error.__cause__ = KeyError("why")
    return error


LATE: list[Record] = []

ERRORS: dict[str, Callable[[], BaseException]] = {
    "transient": lambda: TransientError("again"),
    "reject": lambda: Reject("asked to"),
    "odd": lambda: OddError(code=7),
    "hostile": HostileError,
    "local": local_error,
    "caused": caused,
    "group": lambda: ExceptionGroup("many", [OddError(code=8), ValueError("two")]),
    "cancelled": lambda: asyncio.CancelledError("not by you"),
    "exit": lambda: SystemExit(5),
}


def note(folder: str, *words: object) -> None:
    """A line that all processes may write."""
    line = " ".join(str(word) for word in (time.monotonic(), os.getpid(), *words)) + "\n"
    fd = os.open(Path(folder) / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line.encode())
    os.close(fd)


def handle(value: dict, record: Record) -> None:  # type: ignore[type-arg]
    if "notes" in value:
        note(value["notes"], record.partition, record.offset, record.attempt)
    if record.attempt > value.get("times", 99):
        return
    if (work := value.get("work")) is not None:
        time.sleep(work)
    if (how := value.get("die")) is not None:
        die(how)
    if (topic := value.get("send")) is not None:
        for _ in range(value.get("copies", 1)):
            record.send(topic, value, key=record.key, headers=[("h", b"v")])
    if (error := value.get("raise")) is not None:
        raise ERRORS[error]()


def sends_late(value: dict, record: Record) -> None:  # type: ignore[type-arg]
    LATE.append(record)
    if len(LATE) == 2:
        try:
            LATE[0].send("out", b"late")
        except SendError as error:
            note(value["notes"], str(error))


def plain(value: dict) -> None:  # type: ignore[type-arg]
    if "die" in value:
        die(value["die"])


def calls_a_service(value: dict, record: Record) -> None:  # type: ignore[type-arg]
    if not Path(value["service"]).exists():
        raise TransientError("no answer")
    note(value["notes"], record.partition, record.offset, record.attempt)


def tells_headers(value: dict, record: Record) -> None:  # type: ignore[type-arg]
    note(value["notes"], record.headers, record.timestamp_ms, record.topic)


def prints(value: dict) -> None:  # type: ignore[type-arg]
    print("a line of the child's", value["n"])  # buffered: stdout is no terminal


def die(how: str) -> None:
    match how:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "with a thread":
            threading.Thread(target=time.sleep, args=(60,)).start()
            raise SystemExit(6)
        case "with a heir":  # a fork that keeps every pipe of ours open
            if os.fork() == 0:
                time.sleep(20)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)


async def _real(value: object) -> None:
    raise AssertionError("nobody awaits it")


def forgets_to_await(value: object) -> object:
    return _real(value)


def answers(value: object) -> object:
    """What many write."""
    return value
