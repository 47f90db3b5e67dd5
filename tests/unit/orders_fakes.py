"""An App in memory, so that the HTTP side can be tried without a broker, a slow one or a lost one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import uvicorn

from orders.api import create_api
from orders.ports import listen
from orders.service import OrdersService
from orders.settings import Settings
from relance import DeadLetter, Sent, TopicPartition

# So that `from waiting import wait_until` works however pytest was called.
sys.path.insert(0, str(Path(__file__).parents[1]))

from waiting import wait_until


class FakeDelivery:
    def __init__(self, outcome: Sent | BaseException | asyncio.Event) -> None:
        self._outcome = outcome

    def __await__(self) -> Any:
        return self._wait().__await__()

    def result(self, timeout: float | None = None) -> Sent:
        assert isinstance(self._outcome, Sent)
        return self._outcome

    async def _wait(self) -> Sent:
        if isinstance(self._outcome, asyncio.Event):
            await self._outcome.wait()
            raise AssertionError("this delivery was never to end")
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


class FakeTable:
    """A compacted topic shared by every table that was made with the same log."""

    def __init__(self, log: list[tuple[str, dict[str, Any] | None]] | None = None) -> None:
        self.log = log if log is not None else []
        self.behind: int | None = None
        """Set: this reader has read only that many records."""
        self.waited: list[int] = []
        self.refuse: BaseException | None = None
        self.unsaid = 0
        """So many writes are acknowledged without an offset."""

    @property
    def position(self) -> int:
        return len(self.log) if self.behind is None else self.behind

    def items(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in self.log[: self.position]:
            if value is None:
                found.pop(key, None)
            else:
                found[key] = value
        return found

    def get(self, key: str) -> Any:
        return self.items().get(key)

    def put(self, key: str, value: dict[str, Any] | None) -> FakeDelivery:
        if self.refuse is not None:
            return FakeDelivery(self.refuse)
        self.log.append((key, json.loads(json.dumps(value))))
        if self.unsaid:
            self.unsaid -= 1
            return FakeDelivery(Sent("relance.state", 0, -1))
        return FakeDelivery(Sent("relance.state", 0, len(self.log) - 1))

    async def reached(self, offset: int, timeout: float) -> bool:
        self.waited.append(offset)
        return self.position > offset


class FakeApp:
    def __init__(self, log: list[tuple[str, dict[str, Any] | None]] | None = None) -> None:
        self.state = FakeTable(log)
        self.sent: list[SimpleNamespace] = []
        self.letters: list[SimpleNamespace] = []
        self.outcome: Callable[[], BaseException | asyncio.Event | None] = lambda: None
        """Asked at each write: None lets it succeed."""
        self.asked: BaseException | None = None
        """Raised where the dead-letter topic is asked."""
        self.latest: list[DeadLetter] = []
        self.owned = [TopicPartition("orders", 0), TopicPartition("orders", 3)]
        self.numbers = SimpleNamespace(
            handled=0,
            failed=0,
            retried=0,
            dead_lettered=0,
            rebalances=1,
            last_rebalance=datetime(2026, 1, 31, 10, 30, tzinfo=UTC),
            in_flight=0,
            waiting=0,
        )
        self.status = SimpleNamespace(status="UP", reasons=[], details={})
        self.starting: BaseException | asyncio.Event | None = None
        self.consumers: list[dict[str, Any]] = []
        self.stopped = False
        self.hooks: list[Callable[[list[TopicPartition]], None]] = []
        self.draining: Callable[[], None] = lambda: None
        """Called while the application stops, before the hooks."""

    def table(self, topic: str) -> FakeTable:
        assert topic == "relance.state"
        return self.state

    def consumer(self, *topics: str, **options: Any) -> Callable[[Any], Any]:
        def register(handler: Any) -> Any:
            self.consumers.append({"topics": topics, "handler": handler, **options})
            return handler

        return register

    def on_revoked(self, hook: Callable[[list[TopicPartition]], None]) -> None:
        self.hooks.append(hook)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        if isinstance(self.starting, asyncio.Event):
            await self.starting.wait()
        elif self.starting is not None:
            raise self.starting
        yield
        self.draining()
        for hook in self.hooks:
            hook(self.owned)
        self.stopped = True

    def send(self, topic: str, value: bytes, *, key: bytes | None = None, headers: Any = ()) -> FakeDelivery:
        outcome = self.outcome()
        if outcome is not None:
            return FakeDelivery(outcome)
        self.sent.append(SimpleNamespace(topic=topic, value=value, key=key, headers=list(headers)))
        return FakeDelivery(Sent(topic, 2, len(self.sent) - 1))

    def dead_letter(
        self,
        topic: str,
        value: bytes,
        *,
        key: Any,
        error: BaseException,
        source_topic: str,
        headers: Any = (),
    ) -> FakeDelivery:
        outcome = self.outcome()
        if outcome is not None:
            return FakeDelivery(outcome)
        self.letters.append(
            SimpleNamespace(topic=topic, value=value, key=key, error=error, source_topic=source_topic)
        )
        return FakeDelivery(Sent(topic, 0, len(self.letters) - 1))

    def dead_letters(self, topic: str) -> SimpleNamespace:
        def count() -> int:
            if self.asked is not None:
                raise self.asked
            return len(self.latest)

        def latest(number: int) -> list[DeadLetter]:
            if self.asked is not None:
                raise self.asked
            return self.latest[:number]

        return SimpleNamespace(count=count, latest=latest)

    def assignment(self) -> list[TopicPartition]:
        return self.owned

    def stats(self) -> SimpleNamespace:
        return self.numbers

    def health(self) -> SimpleNamespace:
        return self.status


class Running:
    """A service on a port of its own, until the test ends."""

    def __init__(self, app: FakeApp, role: str = "api", name: str = "one", *, connect: bool = True) -> None:
        self.app = app
        settings = Settings.load({"ORDERS_ROLE": role, "SERVER_PORT": "0", "INSTANCE_NAME": name})
        self.service = OrdersService(settings, app)  # type: ignore[arg-type]
        self.ended = threading.Event()
        listener = listen("127.0.0.1", 0)
        self.port: int = listener.getsockname()[1]
        config = uvicorn.Config(
            create_api(self.service, on_end=self.ended.set),
            http="h11",
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10)
        if connect:
            wait_until(lambda: self.service.connected, message="the service to connect")

    def post(self, content: Any, **headers: str) -> httpx.Response:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.http.post(
            "/api/v1/orders", content=body, headers={"Content-Type": "application/json"} | headers
        )

    def close(self) -> None:
        self.http.close()
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()
