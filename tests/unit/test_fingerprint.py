"""Fingerprints of errors."""

import pytest

from raising import raised
from relance.dead_letters.fingerprint import LENGTH, fingerprint, fingerprint_of, normalise
from relance.errors import MaxRetriesExceededError, TransientError


def raised_elsewhere(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def parse(amount: str) -> None:
    if amount.startswith("-"):
        raise ValueError(f"order {amount!r} is negative")
    raise ValueError(f"order {amount!r} is not a number")


def descend(depth: int) -> None:
    if depth == 0:
        raise ValueError("bottom")
    descend(depth - 1)


def of(text: str) -> str:
    return fingerprint(ValueError(text))


def test_a_fingerprint_is_sixteen_hex_characters():
    assert len(of("x")) == LENGTH == 16
    int(of("x"), 16)


def test_a_fingerprint_is_the_same_in_every_process_and_release():
    # Letters of last year must still group with today's; if the rules change, SCHEME must too.
    assert fingerprint_of("orders.ValidationException", "Invalid amount: -50", ["orders.service:place"]) == (
        "3e11cfe1662c7d37"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("order 17 is late", "order 12345 is late"),
        ("order ORD-17 is late", "order ORD-RETRY-2 is late"),
        ("Invalid amount: -50", "Invalid amount: 3.14e-7"),
        ("user 'bob' unknown", "user 'ali\\'ce, the 2nd' unknown"),
        ('user "bob" unknown', 'user "" unknown'),
        ("at 0x7f7185b3e840", "at 0xdeadbeef"),
        ("digest deadbeefcafe", "digest 0123456789ab"),
        ("id 123e4567-e89b-12d3-a456-426614174000", "id FFFFFFFF-FFFF-FFFF-FFFF-ffffffffffff"),
        ("since 2024-01-15T10:30:00Z", "since 2023-11-14 22:13:20.123456+02:00"),
        ("since 2024-01-15", "since 2024-12-31T00:00"),
        ("P2:O16 at 10.0.0.1:9092", "P0:O99999 at broker-3:9094"),
        ("items [1, 2, 3]", "items [4]"),
        ("ids 1, 2", "ids 3, 4, 5"),
        ("two  lines\n  5", "two lines\t7"),
        ("échec n° ٣", "échec n° 12"),
        ("bad " + repr("x" * 10_000), "bad " + repr("y")),
    ],
)
def test_the_same_bug_with_other_ids_has_the_same_fingerprint(one: str, other: str):
    assert normalise(one) == normalise(other)
    assert of(one) == of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("order 17 is late", "order 17 is early"),
        ("Invalid amount: -50", "Invalid status: -50"),
        ("Object missing required field `amount`", "Object missing required field `orderId`"),
        ("can't read", "can't write"),
        ("", "timed out"),
    ],
)
def test_other_words_are_another_bug(one: str, other: str):
    assert of(one) != of(other)


def test_an_apostrophe_opens_no_quotation():
    assert normalise("can't find orders' owner, won't try") == "can't find orders' owner, won't try"


def test_another_class_is_another_bug():
    assert fingerprint(ValueError("x")) != fingerprint(TypeError("x"))


def test_another_place_is_another_bug():
    assert fingerprint(raised(ValueError("x"))) != fingerprint(raised_elsewhere(ValueError("x")))


def test_the_line_makes_no_difference():
    prints = set()
    for source in (
        "def f():\n    raise ValueError('x')",
        "def f():\n\n\n    y = 1\n    raise ValueError('x')",
    ):
        scope: dict[str, object] = {"__name__": "orders.service"}
        exec(source, scope)  # the same function with its line moved
        with pytest.raises(ValueError, match="x") as caught:
            scope["f"]()  # type: ignore[operator]  # it is the function just defined
        prints.add(fingerprint(caught.value))
    assert len(prints) == 1


def test_how_deep_a_recursion_went_makes_no_difference():
    prints = set()
    for depth in (1, 2, 50):
        with pytest.raises(ValueError, match="bottom") as caught:
            descend(depth)
        prints.add(fingerprint(caught.value))
    assert len(prints) == 1


def test_two_messages_of_one_function_are_two_bugs_whatever_the_ids():
    prints = []
    for amount in ("-1", "-200", "abc", "x y"):
        with pytest.raises(ValueError, match="order") as caught:
            parse(amount)
        prints.append(fingerprint(caught.value))
    assert prints[0] == prints[1] != prints[2] == prints[3]


def test_the_frames_of_relance_itself_make_no_difference():
    scope: dict[str, object] = {"__name__": "relance.workers.inline", "raised": raised}
    exec("def run(error):\n    return raised(error)", scope)
    inner = raised(ValueError("x"))
    for name in ("relance", "relance.workers.asyncio"):
        shell: dict[str, object] = {"__name__": name}
        exec("def run(error):\n    raise error", shell)
        with pytest.raises(ValueError, match="x") as caught:
            shell["run"](ValueError("x"))  # type: ignore[operator]  # it is the function just defined
        caught.value.__traceback__ = caught.value.__traceback__.tb_next  # type: ignore[union-attr]  # it was raised
        assert fingerprint(caught.value) == fingerprint(ValueError("x"))
    assert fingerprint(inner) != fingerprint(ValueError("x"))


def test_exhausted_attempts_have_the_fingerprint_of_the_last_error():
    last = raised(TransientError("order 17 timed out"))
    chained = raised(MaxRetriesExceededError(4, last), last)
    assert fingerprint(chained) == fingerprint(last)
    assert fingerprint(MaxRetriesExceededError(4, last)) == fingerprint(last)


def test_exhausted_attempts_without_an_error_have_one_too():
    assert fingerprint(MaxRetriesExceededError(4, "E: 1")) == fingerprint(MaxRetriesExceededError(5, "E: 2"))


def test_an_explicit_cause_of_another_class_is_another_bug():
    refused = raised(TransientError("call failed"), ConnectionRefusedError("1"))
    also_refused = raised(TransientError("call failed"), ConnectionRefusedError("2"))
    missing = raised(TransientError("call failed"), KeyError("1"))
    assert fingerprint(refused) == fingerprint(also_refused) != fingerprint(missing)


def test_causes_in_a_circle_come_to_an_end():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert fingerprint(first) != fingerprint(second)


def test_text_that_is_no_valid_unicode_has_a_fingerprint():
    assert of("a\ud800") == of("a\ud800") != of("a")


@pytest.mark.parametrize(
    "text",
    [
        "'" * 100_000,
        "\\'" * 50_000,
        "'\\" * 50_000,
        "1-" * 50_000,
        "<id> " * 30_000,
        "a" * 100_000,
        " '" * 50_000,
    ],
)
def test_a_hostile_message_is_read_only_so_far(text: str):
    assert len(normalise(text)) <= 512
