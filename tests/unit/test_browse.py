"""Reading page after page until all that was asked for is there, or until it is told why not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from relance.dead_letters import build, encode
from relance.errors import BrokerUnavailableError, RelanceError
from relance.kafka import browse
from relance.kafka.browse import Browser, FetchedRecord, Page
from relance.kafka.letters import DeadLetters


class Pages(Browser):
    """A topic of `total` records in pages of three; the page at `stuck` brings nothing for lack of time."""

    def __init__(self, total: int, *, value: bytes = b"v", stuck: int | None = None) -> None:
        self.bootstrap_servers, self.timeout = "b:1", 5.0
        self.asked: list[int] = []
        self._total, self._value, self._stuck = total, value, stuck

    def page(self, topic: str, n: int, *, before: Mapping[int, int] | None = None, **_: Any) -> Page:
        self.asked.append(n)
        top = self._total if before is None else before[0]
        if self._stuck == top:
            return Page((), {0: top}, 0, "time")
        low = max(0, top - min(n, 3))
        records = tuple(
            FetchedRecord(topic, 0, offset, None, self._value, (), None)
            for offset in range(top - 1, low - 1, -1)
        )
        return Page(records, {0: low} if low else None, len(records), "bytes" if low else "")


def test_pages_that_are_cut_are_read_on_until_all_are_there() -> None:
    pages = Pages(12)
    assert [r.offset for r in pages.latest("t", 8)] == [11, 10, 9, 8, 7, 6, 5, 4]
    assert pages.asked == [8, 5, 2]
    assert [r.offset for r in pages.latest("t", 100)] == list(range(11, -1, -1))
    assert pages.latest("t", 0) == []


def test_a_page_without_progress_is_told_with_how_far_it_came() -> None:
    with pytest.raises(BrokerUnavailableError, match=r"reading t at b:1 .* 5 s after 6 of 9 records"):
        Pages(12, stuck=6).latest("t", 9)


def test_more_than_a_list_can_hold_is_told_and_never_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browse, "MOST_BYTES", 2**20)
    with pytest.raises(RelanceError, match=r"newest 6 of 9 records of t take 1 MiB.*ask for fewer"):
        Pages(12, value=bytes(2**18)).latest("t", 9)
    assert len(Pages(12, value=bytes(2**18)).latest("t", 6)) == 6


def test_letters_are_as_many_as_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    letters = DeadLetters("t.DLT", "127.0.0.1:1", {})
    letter = build(
        topic="t",
        partition=0,
        offset=1,
        key=b"k",
        value=b"v",
        group="g",
        error=ValueError("no"),
        attempts=1,
        now=0.0,
    )
    monkeypatch.setattr(letters, "_browser", Pages(12, value=encode(letter)))
    assert len(letters.latest(12)) == 12
    assert letters.latest(1)[0].original_topic == "t"
