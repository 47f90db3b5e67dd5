"""Many viewers, one question: answers are shared, kept for a moment, and a broker away is waited for once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from relance.console.asks import Asks, StoppingError
from relance.errors import BrokerUnavailableError, RelanceError

NOBODY = "127.0.0.1:1"


class Slow:
    """Stands where the admin client is: counts the questions, and answers when told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = threading.Event()
        self.error: Exception | None = None

    def topics(self) -> list[Any]:
        self.asked += 1
        assert self.go.wait(10)
        if self.error:
            raise self.error
        return [self.asked]


def asks(slow: Slow, keep: float) -> Asks:
    made = Asks(NOBODY, keep=keep)
    made.admin = slow  # type: ignore[assignment]
    return made


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_all_who_ask_at_once_share_one_answer() -> None:
    slow = Slow()

    async def scenario() -> None:
        shared = asks(slow, keep=30)
        viewers = [asyncio.create_task(shared.topics()) for _ in range(50)]
        await until(lambda: slow.asked == 1)
        slow.go.set()
        assert await asyncio.gather(*viewers) == [[1]] * 50
        assert await shared.topics() == [1], "and those who come a moment later too"

    asyncio.run(scenario())
    assert slow.asked == 1


def test_an_answer_is_asked_for_anew_when_it_is_old() -> None:
    slow = Slow()
    slow.go.set()

    async def scenario() -> None:
        shared = asks(slow, keep=0.01)
        first = await shared.topics()
        await until(lambda: not shared._answers)
        assert (first, await shared.topics()) == ([1], [2])

    asyncio.run(scenario())


def test_a_viewer_who_leaves_does_not_take_the_answer_from_the_others() -> None:
    slow = Slow()

    async def scenario() -> None:
        shared = asks(slow, keep=30)
        leaves, stays = (asyncio.create_task(shared.topics()) for _ in range(2))
        await until(lambda: slow.asked == 1)
        leaves.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        slow.go.set()
        assert await stays == [1]

    asyncio.run(scenario())


def test_a_broker_that_is_away_is_waited_for_once_and_then_known_for_a_while() -> None:
    slow = Slow()
    slow.error = BrokerUnavailableError("away")
    slow.go.set()

    async def scenario() -> None:
        shared = asks(slow, keep=30)
        for _ in range(3):
            with pytest.raises(BrokerUnavailableError):
                await shared.topics()
        with pytest.raises(BrokerUnavailableError):
            await shared.groups()  # another question, which would have waited as well

    asyncio.run(scenario())
    assert slow.asked == 1


def test_another_error_concerns_its_own_question_alone() -> None:
    slow = Slow()
    slow.error = RelanceError("refused")
    slow.go.set()

    async def scenario() -> None:
        shared = asks(slow, keep=0.01)
        with pytest.raises(RelanceError, match="refused"):
            await shared.topics()
        await until(lambda: not shared._answers)
        slow.error = None
        assert await shared.topics() == [2]

    asyncio.run(scenario())


def test_who_waits_when_the_server_stops_is_told_so_at_once() -> None:
    slow = Slow()

    async def scenario() -> None:
        shared = asks(slow, keep=30)
        waits = asyncio.create_task(shared.topics())
        await until(lambda: slow.asked == 1)
        shared.stop()
        with pytest.raises(StoppingError, match="being stopped"):
            await waits
        with pytest.raises(StoppingError):
            await shared.groups()
        slow.go.set()  # the answer that comes after all upsets nobody

    asyncio.run(scenario(), debug=True)
