"""What holds of every fingerprint: what differs from record to record makes no difference."""

from hypothesis import given
from hypothesis import strategies as st

from relance.dead_letters.fingerprint import LENGTH, fingerprint, normalise

ids = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(str),
    st.uuids().map(str),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.datetimes().map(str),
    st.integers(0).map(lambda number: f"ORD-{number}"),
    st.integers(0).map(hex),
)
quoted = st.text(st.characters(codec="utf-8"), max_size=40).map(repr)
TEMPLATES = st.sampled_from(
    [
        "order {} is late",
        "{}",
        "{}: no",
        "no {}",
        "in [{}] ({})",
        "a={};b={}",
        "<{}>",
        "{},{}",
        "P2 {} at {}.",
    ]
)


# All that may stand for one another as an order's id.
words = st.one_of(
    st.integers().map(str),
    st.integers(0).map(lambda number: f"ORD-{number}"),
    st.integers(0).map(hex),
    st.integers(16**7, 16**16).map(lambda number: f"{number:x}"),
    st.uuids().map(str),
)


def of(template: str, value: str) -> str:
    return fingerprint(ValueError(template.replace("{}", value)))


@given(TEMPLATES, quoted, quoted)
def test_quoted_values_make_no_difference(template: str, one: str, other: str) -> None:
    assert of(template, one) == of(template, other)


@given(TEMPLATES, words, words)
def test_ids_of_any_kind_make_no_difference(template: str, one: str, other: str) -> None:
    assert of(template, one) == of(template, other)


@given(TEMPLATES, st.datetimes(), st.datetimes())
def test_times_make_no_difference(template: str, one: object, other: object) -> None:
    assert of(template, str(one)) == of(template, str(other))


@given(st.sampled_from(["order {} is late", "[{}]"]), ids)
def test_no_digit_of_an_id_is_left(template: str, value: str) -> None:
    assert not any(character.isdecimal() for character in normalise(template.replace("{}", value)))


@given(st.text(st.characters(), max_size=300))
def test_any_message_has_a_fingerprint_and_the_same_one_twice(text: str) -> None:
    assert len(fingerprint(ValueError(text))) == LENGTH
    assert fingerprint(ValueError(text)) == fingerprint(ValueError(text))
