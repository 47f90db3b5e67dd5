"""A table by itself, without a client: what it takes in, and who waits for it."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace, TracebackType

import pydantic
import pytest

from relance.errors import SendError
from relance.kafka.table import Table


def test_the_last_value_of_a_key_counts_and_null_removes_it() -> None:
    table = Table("prices")
    for position, (key, raw) in enumerate([(b"a", b'{"n":1}'), (b"b", b"{}"), (b"a", b'{"n":2}')], 1):
        table._take(key, raw, position)
    assert table.items() == {"a": {"n": 2}, "b": {}}
    table._take(b"a", None, 4)
    assert (table.items(), table.position) == ({"b": {}}, 4)


@pytest.mark.parametrize("position", [1, 2])
def test_offsets_that_start_over_are_another_topic_s_and_what_was_known_is_gone(
    position: int, caplog: pytest.LogCaptureFixture
) -> None:
    table = Table("prices")
    table._take(b"a", b"{}", 1)
    table._take(b"b", b"{}", 2)
    table._take(b"c", b"{}", position)
    assert table.items() == {"c": {}}
    assert "table prices was made again" in caplog.text


def test_an_end_without_a_record_is_no_new_topic() -> None:
    table = Table("prices")
    table._take(b"a", b"{}", 1)
    table._end(1)
    table._end(1)
    assert table.items() == {"a": {}}


class ReadsAtOnce(threading.Condition):
    """Whoever takes the lock finds that the table has just read on."""

    table: Table

    def __enter__(self) -> bool:
        entered = super().__enter__()
        self.table._position = 8
        return entered

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, value, trace)


def test_what_is_read_between_two_looks_is_not_waited_for() -> None:
    table = Table("prices")
    table._changed = changed = ReadsAtOnce()
    changed.table = table
    assert asyncio.run(table.reached(7, 0.0))


def test_who_waits_is_woken_by_the_reading_thread() -> None:
    table = Table("prices")

    async def waits() -> list[bool]:
        waiting = asyncio.ensure_future(table.reached(0, 5.0))
        await asyncio.sleep(0)
        await asyncio.to_thread(table._take, b"a", b"{}", 1)
        return [await waiting, await table.reached(1, 0.0)]

    assert asyncio.run(waits()) == [True, False]


def test_a_value_is_written_as_a_record_s_would_be() -> None:
    class Card(pydantic.BaseModel):
        number: str = pydantic.Field(alias="cardNumber")

    written: list[tuple[bytes | None, bytes | None]] = []
    table = Table("cards")
    table._producer = SimpleNamespace(  # type: ignore[assignment]  # all that a put asks of it
        send=lambda topic, value, *, key, answer: written.append((key, value))
    )
    table.put("k", {"card": Card(cardNumber="1")})
    table.put("k", None)
    with pytest.raises(SendError, match="cannot be encoded"):
        table.put("k", {"card": object()})
    assert written == [(b"k", b'{"card":{"cardNumber":"1"}}'), (b"k", None)]
