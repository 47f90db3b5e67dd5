"""What holds of every letter on the ladder: it fits or it is refused, and no content goes without leave."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from relance.dead_letters.envelope import build, decode
from relance.dead_letters.ladder import Fitted, TooLarge, fit, record_size
from relance.engine.deferral import Failure

NOW = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
payloads = st.none() | st.binary(max_size=2_000)


@given(
    key=payloads,
    value=payloads,
    headers=st.lists(st.tuples(st.text(st.characters(codec="utf-8")), payloads), max_size=4),
    history=st.lists(
        st.builds(Failure, st.integers(1, 9), st.text(max_size=300), st.floats(0, 1e9)), max_size=4
    ),
    offset=st.none() | st.integers(0, 10**9),
    limit=st.integers(0, 12_000),
    allow_pointer=st.booleans(),
)
def test_a_letter_fits_or_is_refused_and_its_content_goes_only_with_leave(
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes | None]],
    history: list[Failure],
    offset: int | None,
    limit: int,
    allow_pointer: bool,
) -> None:
    letter = build(
        topic="orders",
        partition=2,
        offset=offset,
        key=key,
        value=value,
        headers=headers,
        group="g",
        error=ValueError("x"),
        attempts=1,
        history=history,
        now=NOW,
    )
    result = fit(letter, limit, allow_pointer)
    if isinstance(result, TooLarge):
        assert result.size > result.limit == limit
        return
    assert isinstance(result, Fitted)
    assert record_size(result.letter, result.raw) <= limit
    read = decode(result.raw)
    assert read.key_bytes() == key
    assert not read.pointer or (allow_pointer and offset is not None)
    if "originalValue" not in read.trimmed:
        assert read.value_bytes() == value
    if "originalHeaders" not in read.trimmed:
        assert read.header_items() == headers
    assert bool(read.pointer) == bool({"originalValue", "originalHeaders"} & set(read.trimmed))
