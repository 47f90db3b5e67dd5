"""An application whose handlers fork: `python forker.py CONFIG.json`; a line of JSON on stdout for each time.

{"how": ..., "told": ...}: what became of the child. With `prefork` the program forks first, and each child
runs the application that it inherited.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relance import App, Record, RelanceError, SendError, Settings

config: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
forking = multiprocessing.get_context("fork")
app = App(
    config["group"],
    settings=Settings(
        bootstrap_servers=config["bootstrap"],
        session_timeout=6.0,
        heartbeat_interval=0.5,
        commit_interval=0.2,
        drain_timeout=2.0,
    ),
)


def tell(how: str, told: object) -> None:
    os.write(1, (json.dumps({"how": how, "told": told, "pid": os.getpid()}) + "\n").encode())


def status_of(pid: int) -> int | str:
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "hung"


def sends(record: Record) -> None:
    refused = []
    for send in (lambda: record.send("out", b"x"), lambda: app.send("out", b"x")):
        try:
            send()
        except (SendError, RelanceError) as error:
            refused.append(type(error).__name__)
    health = app.health().status
    app.stats()
    app.stop()
    tell("says", [*refused, health])


def exits() -> None:
    atexit._run_exitfuncs()


def in_a_child(how: str, record: Record) -> None:
    match how:
        case "exit":
            sys.exit(3)
        case "raise":
            raise ValueError("in the child")
        case "send":
            sends(record)
        case "atexit":
            exits()


def handle(value: dict, record: Record) -> None:  # type: ignore[type-arg]
    how = value["how"]
    if how == "terminate":
        child = forking.Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join(5.0)
        tell(how, child.exitcode)
        if child.exitcode is None:
            child.kill()
    elif how == "pool":
        with forking.Pool(2) as pool:
            found = pool.map(abs, [-1, -2])
        tell(how, found)
    elif how == "process":
        child = forking.Process(target=len, args=([],))
        child.start()
        child.join(5.0)
        tell(how, child.exitcode)
        if child.exitcode is None:
            child.kill()
    elif how == "last":
        tell(how, True)
    else:
        pid = os.fork()
        if pid == 0:
            in_a_child(how, record)
            return
        tell(how, status_of(pid))


async def handle_async(value: dict, record: Record) -> None:  # type: ignore[type-arg]
    if value["how"] == "await":
        pid = os.fork()
        if pid == 0:
            await asyncio.sleep(60)
        tell("await", status_of(pid))
    else:
        handle(value, record)


@app.on_assigned
def came(partitions: object) -> None:
    if config.get("hook"):
        pid = os.fork()
        if pid:
            tell("hook", status_of(pid))


def fork_beside() -> None:
    """The main thread forks while the application runs on another, and the child's interpreter ends."""

    def work() -> None:
        asyncio.run(run())

    async def run() -> None:
        async with app.running():
            running.set()
            await asyncio.to_thread(ended.wait)

    running, ended = threading.Event(), threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    running.wait()
    pid = os.fork()
    if pid == 0:
        sys.exit(4)
    tell("beside", status_of(pid))
    ended.set()
    thread.join()


def prefork(run: Callable[[], None]) -> None:
    children = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            run()
            os._exit(0)
        children.append(pid)
    tell("children", children)
    tell("ended", [status_of_long(pid) for pid in children])


def status_of_long(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")

mode = config["workers"]
if mode == "loop":
    app.consumer(config["topic"])(handle_async)
elif mode == "inline":
    app.consumer(config["topic"], workers="inline")(handle)
else:
    app.consumer(config["topic"], workers=mode, concurrency=2)(handle)

if __name__ == "__main__":
    if config.get("beside"):
        fork_beside()
    elif config.get("prefork"):
        prefork(app.run)
    else:
        app.run()
