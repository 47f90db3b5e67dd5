"""`relance.testing`: handlers that wait for the real world, for one another, or for nothing at all."""

from __future__ import annotations

import asyncio
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from relance import App, RelanceError, RetryPolicy
from relance.testing import World

Step = Callable[[], Awaitable[Any]]


def app_with(handler: Callable[..., Any], **options: Any) -> App:
    app = App("g", bootstrap_servers="localhost:1")
    app.consumer("t", **{"dead_letter_topic": "t.DLT", **options})(handler)
    return app


class Server:
    """Answers each request after a while, on a thread for each connection."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.silent = False
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._answer, args=(connection,)))
            self._threads[-1].start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            while True:
                try:
                    if not connection.recv(65_536):
                        return
                    if not self.silent:
                        time.sleep(0.05)
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                except OSError:
                    return

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


class Database:
    """As aiosqlite does it: a thread of its own, which answers with `call_soon_threadsafe`."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[asyncio.Future[int] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="database")
        self._thread.start()

    def _work(self) -> None:
        while (future := self._asked.get()) is not None:
            future.get_loop().call_soon_threadsafe(_answer, future)

    async def execute(self) -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._asked.put(future)
        return await future

    def close(self) -> None:
        self._asked.put(None)
        self._thread.join()


def _answer(future: asyncio.Future[int]) -> None:
    if not future.done():
        future.set_result(1)


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    database = Database()
    yield database
    database.close()


class Steps:
    """What handlers do that is real."""

    def __init__(self, server: Server, database: Database) -> None:
        self._server, self._database = server, database

    async def a_thread(self) -> None:
        await asyncio.to_thread(time.sleep, 0.05)

    async def a_thread_that_is_quick(self) -> None:
        await asyncio.to_thread(int)

    async def an_executor(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.05)

    async def a_thread_and_time(self) -> None:
        await asyncio.gather(asyncio.to_thread(time.sleep, 0.05), asyncio.sleep(3))

    async def a_group(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(time.sleep, 0.05))
            group.create_task(asyncio.sleep(3))

    async def a_shield(self) -> None:
        await asyncio.shield(asyncio.to_thread(time.sleep, 0.05))

    async def a_deadline(self) -> None:
        async with asyncio.timeout(0.001):
            await asyncio.to_thread(time.sleep, 0.05)

    async def a_wait_for(self) -> None:
        await asyncio.wait_for(asyncio.to_thread(time.sleep, 0.05), 0.001)

    async def an_http_client(self) -> None:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{self._server.port}/", timeout=0.001)
            assert answer.text == "ok"

    async def a_name(self) -> None:
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://localhost:{self._server.port}/")).text == "ok"

    async def a_stream(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        writer.write(b"?")
        assert await reader.read(10)
        writer.close()
        await writer.wait_closed()

    async def a_program(self) -> None:
        program = await asyncio.create_subprocess_exec("true")
        assert await program.wait() == 0

    async def a_pipe(self) -> None:
        program = await asyncio.create_subprocess_shell("echo a", stdout=subprocess.PIPE)
        assert (await program.communicate())[0] == b"a\n"

    async def a_thread_of_anyio(self) -> None:
        await anyio.to_thread.run_sync(time.sleep, 0.05)

    async def a_thread_of_its_own(self) -> None:
        assert await self._database.execute() == 1


STEPS = [name for name in vars(Steps) if not name.startswith("_")]


@pytest.fixture
def steps(server: Server, database: Database) -> Steps:
    return Steps(server, database)


def in_a_loop(test: Callable[[], None]) -> None:
    async def main() -> None:
        test()
        await asyncio.sleep(0)

    asyncio.run(main())


# -- real I/O ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("around", [lambda test: test(), in_a_loop], ids=["plain", "async"])
def test_real_io_is_an_error_that_names_what_is_awaited(
    steps: Steps, name: str, around: Callable[[Callable[[], None]], None]
) -> None:
    def test() -> None:
        async def pay(value: int) -> None:
            await getattr(steps, name)()

        with World(app_with(pay)) as world:
            world.produce("t", 1)
            with pytest.raises(RelanceError, match="waits for the real world") as raised:
                world.run()
            told = str(raised.value)
            assert told.startswith("t-0, offset 0: handler ")
            assert "pay waits" in told
            assert "World(app, real_io=True)" in told
            assert f"{__file__}:" in told, "a line of the user's own"
            with pytest.raises(RelanceError, match="waits for the real world"):
                world.finish()
            assert world.lag("t") == 1

    around(test)


def test_real_io_that_fails_at_once_is_named_by_the_handler_s_own_line() -> None:
    async def pay(value: int) -> None:
        async with httpx.AsyncClient() as client:
            await client.get("http://127.0.0.1:1/")

    with World(app_with(pay)) as world:
        world.produce("t", 1)
        with pytest.raises(RelanceError, match=r"\(a socket or pipe\) at .* in pay"):
            world.run()


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("around", [lambda test: test(), in_a_loop], ids=["plain", "async"])
def test_real_io_that_is_allowed_is_waited_for_and_virtual_time_stands_still(
    steps: Steps, name: str, around: Callable[[Callable[[], None]], None]
) -> None:
    done: list[int] = []

    def test() -> None:
        async def pay(value: int) -> None:
            await getattr(steps, name)()
            done.append(value)

        with World(app_with(pay, timeout=5.0), real_io=True) as world:
            world.produce("t", 1)
            world.produce("t", 2)
            world.finish()
            assert done == [1, 2]
            assert world.dead_letters() == []
            assert world.now == (6.0 if name in ("a_thread_and_time", "a_group") else 0.0)
            assert world.lag("t") == 0

    around(test)


def test_real_io_does_not_move_what_others_wait_for(steps: Steps) -> None:
    done: list[tuple[int, float]] = []

    async def handle(value: int) -> None:
        await (asyncio.sleep(7) if value else steps.a_stream())
        done.append((value, world.now))

    app = app_with(handle, ordering="none", concurrency=2)
    with World(app, real_io=True) as world:
        world.produce("t", 0)
        world.produce("t", 1)
        world.run()
        assert done == [(0, 0.0)]
        world.finish()
        assert done == [(0, 0.0), (1, 7.0)]


def test_what_never_answers_has_a_limit_in_real_time(server: Server) -> None:
    async def pay(value: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            writer.write(b"?")
            await reader.read(10)
        finally:
            writer.close()

    server.silent = True
    try:
        with World(app_with(pay), real_io=True, real_time_limit=0.5) as world:
            world.produce("t", 1)
            with pytest.raises(AssertionError, match=r"nothing has come .* for 0\.5 s") as raised:
                world.finish()
            assert "streams.py" in str(raised.value)
            assert f"{__file__}:" in str(raised.value)
    finally:
        server.silent = False


def test_a_connection_that_is_kept_open_holds_nothing_up(server: Server) -> None:
    connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    lock = asyncio.Lock()

    async def handle(value: int) -> None:
        if not connections:
            connections.append(await asyncio.open_connection("127.0.0.1", server.port))
        async with lock:
            await asyncio.sleep(60)
        if value == 2:
            connections[0][1].close()

    app = app_with(handle, ordering="none", concurrency=3)
    began = time.monotonic()
    with World(app, real_io=True) as world:
        for value in range(3):
            world.produce("t", value)
        world.finish()
        assert world.now == 180.0
    assert time.monotonic() - began < 25, "it has waited for the limit"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_handler_that_blocks_its_thread_has_a_limit_too(is_async: bool) -> None:
    never = threading.Event()

    def block(value: int) -> None:
        try:
            never.wait()
        except Exception:  # a handler may catch whatever it likes
            never.wait()

    async def block_the_loop(value: int) -> None:
        block(value)

    handler = block_the_loop if is_async else block
    with World(app_with(handler, concurrency=2), real_time_limit=0.1) as world:
        world.produce("t", 1)
        with pytest.raises(AssertionError, match="has blocked") as raised:
            world.finish()
        assert "for 0.1 s" in str(raised.value)
        assert world.lag("t") == 1


@pytest.mark.parametrize("pause", [0.0, 0.001])
def test_a_handler_that_looks_again_and_again_has_a_limit_too(pause: float) -> None:
    async def handle(value: int) -> None:
        while value:
            await asyncio.sleep(pause)

    with World(app_with(handle), real_time_limit=0.1) as world:
        world.produce("t", 1)
        with pytest.raises(AssertionError, match=r"handle.*for 0\.1 s"):
            world.finish()


def test_a_limit_is_some_time() -> None:
    with pytest.raises(RelanceError, match="real_time_limit is seconds of real time"):
        World(app_with(lambda value: None), real_time_limit=0)


# -- what is no I/O ----------------------------------------------------------------------------------


@pytest.mark.parametrize("real_io", [False, True])
def test_handlers_may_wait_for_one_another(real_io: bool) -> None:
    queued: asyncio.Queue[int] = asyncio.Queue()
    taken: list[int] = []

    async def handle(value: int) -> None:
        if value < 2:
            taken.append(await queued.get())
        else:
            await asyncio.sleep(5)
            queued.put_nowait(value)

    app = app_with(handle, ordering="none", concurrency=4)
    with World(app, real_io=real_io) as world:
        for value in range(4):
            world.produce("t", value)
        world.finish()
        assert (taken, world.now, world.lag("t")) == ([2, 3], 5.0, 0)


def test_a_handler_may_wait_for_the_test() -> None:
    async def handle(value: int) -> None:
        await event.wait()

    event = asyncio.Event()
    with World(app_with(handle)) as world:
        world.produce("t", 1)
        world.run()
        world.jump(5)
        assert world.lag("t") == 1
        event.set()
        world.finish()
        assert (world.lag("t"), world.now) == (0, 5.0)


def test_finish_does_not_return_while_a_handler_waits_for_what_nothing_will_end() -> None:
    async def handle(value: int) -> None:
        await asyncio.Event().wait()

    with World(app_with(handle)) as world:
        world.produce("t", 1)
        with pytest.raises(AssertionError, match="still waits") as raised:
            world.finish()
        assert f"{__file__}:" in str(raised.value)
        assert "Event.wait" in str(raised.value)
        assert "t-0, offset 0: handler" in str(raised.value)


def test_a_fake_of_another_package_that_waits_for_a_handler_is_no_io() -> None:
    taken: list[int] = []

    async def handle(value: int) -> None:
        if value == 0:
            taken.append(await receive.receive())
        else:
            await asyncio.sleep(1)
            await send.send(value)

    send, receive = anyio.create_memory_object_stream[int]()
    with send, receive, World(app_with(handle, ordering="none", concurrency=2), real_io=True) as world:
        for value in range(2):
            world.produce("t", value)
        world.finish()
        assert (taken, world.lag("t")) == ([1], 0)


def test_an_answer_that_comes_after_the_end_of_a_world_finds_nobody(database: Database) -> None:
    async def handle(value: int) -> None:
        await database.execute()

    with World(app_with(handle)) as world:
        world.produce("t", 1)
        with pytest.raises(RelanceError, match="the thread database"):
            world.run()
    database.close()
    database.__init__()  # type: ignore[misc]  # its thread has ended without an error


def test_tasks_that_a_handler_leaves_behind_end_with_the_world(caplog: pytest.LogCaptureFixture) -> None:
    left: list[asyncio.Task[None]] = []

    async def handle(value: int) -> None:
        left.append(asyncio.create_task(asyncio.sleep(10_000)))

    with World(app_with(handle)) as world:
        world.produce("t", 1)
        world.run()
    assert left[0].cancelled()
    assert caplog.messages == []


def test_a_sync_handler_has_no_event_loop_though_the_test_has() -> None:
    def handle(value: int) -> None:
        asyncio.run(asyncio.sleep(0))

    def test() -> None:
        with World(app_with(handle)) as world:
            world.produce("t", 1)
            world.finish()
            assert world.dead_letters() == []

    in_a_loop(test)


def test_an_async_test_may_use_a_world_between_its_own_awaits() -> None:
    async def test() -> None:
        async def handle(value: int) -> None:
            await asyncio.sleep(30)
            if value == 0:
                raise ValueError("no")

        with World(app_with(handle, retry=RetryPolicy.fixed(1.0))) as world:
            await asyncio.sleep(0)
            world.produce("t", 0)
            sent = await world.app.send("t", 1)
            assert sent.offset == 1
            world.finish()
            await asyncio.sleep(0)
            assert (len(world.dead_letters()), world.now) == (1, 60.0)

    asyncio.run(test())
