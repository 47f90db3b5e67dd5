"""What holds of every retry record: it comes back as it was, and nothing forged raises, loops or waits on."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mutation import mutated, mutations
from relance.engine.deferral import (
    HEADER_NAMES,
    MAX_ATTEMPT,
    MAX_HISTORY,
    Deferral,
    Failure,
    NotOurs,
    Unreadable,
    defer,
    from_headers,
    original_headers,
    to_headers,
    wait,
)

NOW = 1_700_000_000.0
DAY = 86_400.0

utf8 = st.text(st.characters(codec="utf-8"), max_size=60)
header_lists = st.lists(st.tuples(utf8, st.none() | st.binary(max_size=30)), max_size=8)
foreign_headers = header_lists.map(lambda headers: [item for item in headers if item[0] not in HEADER_NAMES])
milliseconds = st.integers(0, 86_400_000).map(lambda number: number / 1000)
clocks = st.integers(1_600_000_000_000, 4_000_000_000_000).map(lambda number: number / 1000)
topics = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,40}", fullmatch=True)
failures = st.builds(
    Failure,
    st.integers(1, MAX_ATTEMPT),
    utf8,
    st.floats(0, 4e9, allow_nan=False).map(lambda number: number + 0.0),
)


@st.composite
def deferrals(draw: st.DrawFn) -> tuple[Deferral, float]:
    now = draw(clocks)
    deferral = defer(
        group=draw(utf8.filter(bool)),
        topic=draw(topics),
        partition=draw(st.integers(0, 2**31 - 1)),
        offset=draw(st.integers(0, 2**63 - 1)),
        timestamp=draw(st.none() | st.integers(0, 2**63 - 1)),
        attempt=draw(st.integers(1, MAX_ATTEMPT)),
        delay=draw(milliseconds),
        now=now,
        error=draw(utf8),
        first_failure=draw(st.none() | clocks),
        history=draw(st.lists(failures, max_size=MAX_HISTORY + 5)),
    )
    return deferral, now


@given(deferrals(), foreign_headers)
def test_a_deferral_and_the_original_headers_come_back(
    made: tuple[Deferral, float], original: list[tuple[str, bytes | None]]
) -> None:
    deferral, now = made
    headers = to_headers(deferral, original)
    assert original_headers(headers) == original
    read = from_headers(headers, group=deferral.group, now=now, max_delay=DAY)
    assert isinstance(read, Deferral)
    assert not read.clamped
    # Whole milliseconds come back as such; now + delay adds a float's noise, far below one.
    assert abs(read.due - deferral.due) < 1e-5
    for name in Deferral.__struct_fields__:
        if name != "due":
            assert getattr(read, name) == getattr(deferral, name), name


@given(deferrals(), foreign_headers, st.integers(1, 5))
def test_writing_a_record_again_and_again_adds_nothing(
    made: tuple[Deferral, float], original: list[tuple[str, bytes | None]], times: int
) -> None:
    deferral, now = made
    headers = once = to_headers(deferral, original)
    for _ in range(times):
        read = from_headers(headers, group=deferral.group, now=now, max_delay=DAY)
        assert isinstance(read, Deferral)
        headers = to_headers(read, headers)
    assert headers == once


@given(st.floats(0, DAY), st.floats(1.6e9, 4e9), st.floats(-1e6, 1e6))
def test_never_early_by_the_reader_s_clock_and_never_longer_than_the_delay(
    delay: float, now: float, skew: float
) -> None:
    deferral = defer(
        group="g",
        topic="t",
        partition=0,
        offset=0,
        timestamp=None,
        attempt=2,
        delay=delay,
        now=now,
        error="E",
    )
    read = from_headers(to_headers(deferral, []), group="g", now=now, max_delay=DAY + 1)
    assert isinstance(read, Deferral)
    assert read.due >= deferral.due - 1e-5  # a hundredth of a millisecond: what rounding takes off as noise
    waited = wait(read, now + skew)
    assert 0.0 <= waited <= read.delay
    # Either it is due by the reader's clock, or the whole delay has been waited.
    assert now + skew + waited >= read.due - 1e-6 or waited == read.delay


hostile = st.one_of(
    st.none(),
    st.binary(max_size=40),
    st.integers().map(lambda number: str(number).encode()),
    st.floats().map(lambda number: str(number).encode()),
    st.sampled_from(
        [b"9" * 5_000, b"[" * 50_000, b"[{}]", b"NaN", b"\xff", b"g", b"orders", b"g:orders:2:16"]
    ),
)
good = dict(
    to_headers(
        defer(
            group="g",
            topic="orders",
            partition=2,
            offset=16,
            timestamp=None,
            attempt=2,
            delay=1.0,
            now=NOW,
            error="E: x",
        ),
        [],
    )
)


@given(
    forged=st.dictionaries(st.sampled_from(sorted(HEADER_NAMES)), hostile, max_size=4),
    dropped=st.sets(st.sampled_from(sorted(HEADER_NAMES)), max_size=1),
    more=st.lists(st.tuples(st.sampled_from(sorted(HEADER_NAMES)), hostile), max_size=1),
    now=st.floats(0, 4e9),
    max_delay=st.floats(0, 1e8),
)
def test_nothing_forged_raises_or_waits_longer_than_allowed(
    forged: dict[str, Any],
    dropped: set[str],
    more: list[tuple[str, bytes | None]],
    now: float,
    max_delay: float,
) -> None:
    headers = [(name, value) for name, value in (good | forged).items() if name not in dropped] + more
    read = from_headers(headers, group="g", now=now, max_delay=max_delay)
    if isinstance(read, Unreadable):
        assert read.reason.startswith("relance-")
    elif isinstance(read, NotOurs):
        assert read.group != "g"
    else:
        assert 0.0 <= wait(read, now) <= max_delay
        assert 1 <= read.attempt <= MAX_ATTEMPT
        assert read.due <= now + max_delay
        # What could be read can be written and read again.
        again = from_headers(to_headers(read, []), group="g", now=now, max_delay=max_delay + 1)
        assert isinstance(again, Deferral)


@given(header_lists)
def test_arbitrary_headers_are_unreadable_in_words(headers: list[tuple[str, bytes | None]]) -> None:
    assert isinstance(from_headers(headers, group="g", now=NOW, max_delay=DAY), Unreadable)


@given(st.dictionaries(st.sampled_from(sorted(HEADER_NAMES)), mutations, min_size=1, max_size=3))
def test_damaged_headers_are_unreadable_or_wait_no_longer_than_allowed(changes: dict[str, Any]) -> None:
    headers = [
        (name, mutated(value or b"", changes[name]) if name in changes else value)
        for name, value in good.items()
    ]
    read = from_headers(headers, group="g", now=NOW, max_delay=300.0)
    if isinstance(read, Unreadable):
        assert read.reason.startswith("relance-")
        assert len(read.reason) < 600
    elif isinstance(read, Deferral):
        assert 0.0 <= wait(read, NOW) <= 300.0
        assert 1 <= read.attempt <= MAX_ATTEMPT
        assert len(read.history) <= MAX_HISTORY
