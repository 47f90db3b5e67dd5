"""The answer to a send, for tasks and for threads."""

import asyncio
import threading

import pytest

from relance.delivery import Delivery, Sent
from relance.errors import SendError

SENT = Sent("orders", 1, 16)


def answered(error: SendError | None = None, sent: Sent | None = None) -> Delivery:
    delivery = Delivery()
    delivery.answer(error, sent)
    return delivery


def test_a_thread_gets_where_it_lies() -> None:
    delivery = answered(sent=SENT)
    assert delivery.done()
    assert delivery.result() == SENT
    assert delivery.result(0) == ("orders", 1, 16)


def test_a_thread_that_waits_too_briefly_is_told_so_and_may_ask_again() -> None:
    delivery = Delivery()
    assert not delivery.done()
    with pytest.raises(TimeoutError):
        delivery.result(0)
    delivery.answer(None, SENT)
    assert delivery.result(0) == SENT


def test_a_write_that_failed_raises_for_everybody_who_asks() -> None:
    delivery = answered(SendError("refused", maybe_written=False))

    async def ask() -> None:
        await delivery

    for _ in range(2):
        with pytest.raises(SendError) as caught:
            delivery.result(0)
        assert not caught.value.maybe_written
    with pytest.raises(SendError):
        asyncio.run(ask())


def test_without_any_answer_it_may_have_been_written() -> None:
    with pytest.raises(SendError) as caught:
        answered().result(0)
    assert caught.value.maybe_written


def test_a_task_waits_for_an_answer_from_another_thread() -> None:
    async def ask() -> Sent:
        delivery = Delivery()
        threading.Thread(target=delivery.answer, args=(None, SENT)).start()
        return await asyncio.wait_for(delivery, 5)

    assert asyncio.run(ask()) == SENT


def test_several_tasks_may_await_it_also_one_after_the_other() -> None:
    async def ask() -> list[Sent]:
        delivery = Delivery()

        async def one() -> Sent:
            return await delivery

        tasks = [asyncio.create_task(one()) for _ in range(3)]
        await asyncio.sleep(0)
        delivery.answer(None, SENT)
        return [*await asyncio.gather(*tasks), await delivery]

    assert asyncio.run(ask()) == [SENT] * 4


def test_a_waiter_that_gives_up_cancels_neither_the_write_nor_the_other_waiters() -> None:
    async def ask() -> Sent:
        delivery = Delivery()

        async def one() -> Sent:
            return await delivery

        first, second = asyncio.create_task(one()), asyncio.create_task(one())
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        delivery.answer(None, SENT)
        return await second

    assert asyncio.run(ask()) == SENT


def test_an_answer_after_the_loop_is_gone_hurts_nobody() -> None:
    delivery = Delivery()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(delivery, 0.01)

    asyncio.run(give_up())
    delivery.answer(None, SENT)
    assert delivery.result(0) == SENT
