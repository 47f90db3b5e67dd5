"""What a setting may be, and all that is wrong told at once."""

import math
from typing import Any

import pytest

from relance.environment import Problems, Setting
from relance.errors import SettingsError

RETRIES = Setting(int, low=0, high=100)
JITTER = Setting(float, low=0, high=1)
STRATEGY = Setting(str, choices=("immediate", "fixed", "exponential"))


def test_a_text_becomes_a_value_of_its_kind() -> None:
    assert RETRIES.parse("MAX_RETRIES", " 5 ") == 5
    assert JITTER.parse("RETRY_JITTER", "1e-1") == 0.1
    assert STRATEGY.parse("RETRY_STRATEGY", "fixed") == "fixed"
    assert Setting(bool).parse("DRY_RUN", "Yes") is True


def test_all_that_is_wrong_is_told_at_once() -> None:
    problems = Problems()
    problems.attempt(RETRIES.parse, "MAX_RETRIES", "-1")
    problems.attempt(JITTER.parse, "RETRY_JITTER", "lots")
    problems.attempt(Setting(bool).parse, "DRY_RUN", "maybe")
    with pytest.raises(SettingsError) as caught:
        problems.raise_if_any()
    assert [key for key, _ in caught.value.problems] == ["MAX_RETRIES", "RETRY_JITTER", "DRY_RUN"]
    assert str(caught.value).splitlines() == [
        "MAX_RETRIES: must be an integer from 0 to 100, not -1",
        "RETRY_JITTER: must be a number, not 'lots'",
        "DRY_RUN: must be true or false, not 'maybe'",
    ]


@pytest.mark.parametrize("text", ["3.0", "three", "0x3", "101", "9" * 5000, "3\x00", "nan"])
def test_an_integer_is_digits_within_bounds(text: str) -> None:
    with pytest.raises(SettingsError, match="MAX_RETRIES: must be an integer") as caught:
        RETRIES.parse("MAX_RETRIES", text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "1.01", "1s", "0,5"])
def test_a_number_is_finite_and_within_bounds(text: str) -> None:
    with pytest.raises(SettingsError, match="RETRY_JITTER: must be a number"):
        JITTER.parse("RETRY_JITTER", text)


def test_a_number_without_bounds_must_still_be_finite() -> None:
    assert Setting(float).parse("X", "-1e250") == -1e250
    assert Setting(int).parse("X", "-5") == -5
    for text in ("nan", "inf", "1e301"):
        with pytest.raises(SettingsError):
            Setting(float).parse("X", text)


def test_a_wrong_choice_is_answered_with_the_right_ones() -> None:
    with pytest.raises(SettingsError, match="must be one of immediate, fixed, exponential, not 'linear'"):
        STRATEGY.parse("RETRY_STRATEGY", "linear")


@pytest.mark.parametrize("text", ["a\x00b", "a\nb", "\x1b[31m", "x" * 20_000])
def test_a_text_can_be_printed(text: str) -> None:
    with pytest.raises(SettingsError, match="must be a text that can be printed") as caught:
        Setting(str).parse("KAFKA_TOPIC", text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        (Setting(int), "3"),
        (Setting(int), 3.0),
        (Setting(int), True),
        (Setting(int), None),
        (Setting(float), "3"),
        (Setting(float), math.nan),
        (Setting(float), True),
        (Setting(bool), 1),
        (Setting(bool), "true"),
        (Setting(str), 3),
        (Setting(str), b"x"),
        (Setting(str), ""),
    ],
)
def test_a_value_from_a_file_or_code_must_have_its_type_already(setting: Setting, value: Any) -> None:
    with pytest.raises(SettingsError, match=r"^key: must be"):
        setting.check("key", value)


def test_none_will_do_only_where_it_is_optional() -> None:
    assert Setting(str, optional=True).check("key", None) is None


def test_problems_are_kept_until_they_are_raised() -> None:
    problems = Problems()
    problems.raise_if_any()
    assert problems.attempt(Setting(int).parse, "A", "1") == 1
    assert problems.attempt(Setting(int).parse, "B", "x") is None
    with pytest.raises(SettingsError, match=r"^B: "):
        problems.raise_if_any()
