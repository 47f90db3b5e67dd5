"""Texts of others are made visible, their times are UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from relance.text import is_unicode, iso, one_line, visible


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        ("a\x1b[31mb", "a␛[31mb"),
        ("a\x00b\x7f\x9b", "a␀b␡⟨U+009B⟩"),
        ("user\u202egpj.exe", "user⟨U+202E⟩gpj.exe"),
        ("zero\u200bwidth\ufeff", "zero⟨U+200B⟩width⟨U+FEFF⟩"),
        ("line\nnext\ttab\r", "line\nnext\ttab␍"),
        ("é漢😀\u00a0\u2009", "é漢😀\u00a0\u2009"),
    ],
)
def test_what_cannot_be_seen_is_made_visible(raw: str, seen: str) -> None:
    assert visible(raw) == seen


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ("order 7 is bad", "order 7 is bad"),
        ("a\n[DLT] forged\r\tb\x1b[2J", "a␊[DLT] forged␍␉b␛[2J"),
        ("a\u2028b\x85c\vd\x1ce", "a⟨U+2028⟩b⟨U+0085⟩c␋d␜e"),
    ],
)
def test_a_line_of_a_log_stays_one_line(raw: str, line: str) -> None:
    assert one_line(raw) == line
    assert len(one_line(raw).splitlines()) == 1


def test_a_lone_surrogate_is_no_unicode() -> None:
    assert is_unicode("é漢😀\0")
    assert not is_unicode("a\udcff")


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 11, 23, 20, 16, 34, 307_900, UTC),
        datetime(2026, 11, 23, 21, 16, 34, 307_900, timezone(timedelta(hours=1))),
        datetime(2026, 11, 23, 20, 16, 34, 307_900),
    ],
)
def test_a_time_is_written_in_utc_to_the_millisecond(moment: datetime) -> None:
    assert iso(moment) == "2026-11-23T20:16:34.307Z"
