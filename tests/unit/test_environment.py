"""Environment variables against a specification."""

import math
from typing import Any

import pytest

from relance.environment import Problems, Setting, read_env
from relance.errors import SettingsError

SPEC = {
    "MAX_RETRIES": Setting(int, 3, low=0, high=100),
    "RETRY_JITTER": Setting(float, 0.2, low=0, high=1),
    "RETRY_STRATEGY": Setting(str, "exponential", choices=("immediate", "fixed", "exponential")),
    "DRY_RUN": Setting(bool, False),
    "KAFKA_TOPIC": Setting(str, "orders"),
}


def test_what_is_not_set_or_empty_gets_its_default() -> None:
    expected = {
        "MAX_RETRIES": 3,
        "RETRY_JITTER": 0.2,
        "RETRY_STRATEGY": "exponential",
        "DRY_RUN": False,
        "KAFKA_TOPIC": "orders",
    }
    assert read_env(SPEC, {}) == expected
    assert read_env(SPEC, dict.fromkeys(SPEC, "")) == expected
    assert read_env(SPEC, dict.fromkeys(SPEC, "  ")) == expected


def test_what_is_set_is_parsed() -> None:
    env = {
        "MAX_RETRIES": " 5 ",
        "RETRY_JITTER": "1e-1",
        "RETRY_STRATEGY": "fixed",
        "DRY_RUN": "Yes",
        "OTHER": "x",
    }
    assert read_env(SPEC, env) == {
        "MAX_RETRIES": 5,
        "RETRY_JITTER": 0.1,
        "RETRY_STRATEGY": "fixed",
        "DRY_RUN": True,
        "KAFKA_TOPIC": "orders",
    }


def test_the_processs_own_environment_is_read_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_RETRIES", "7")
    assert read_env(SPEC)["MAX_RETRIES"] == 7


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        read_env(SPEC, {"MAX_RETRIES": "-1", "RETRY_JITTER": "lots", "DRY_RUN": "maybe", "KAFKA_TOPIC": "t"})
    assert [key for key, _ in caught.value.problems] == ["MAX_RETRIES", "RETRY_JITTER", "DRY_RUN"]
    assert str(caught.value).splitlines() == [
        "MAX_RETRIES: must be an integer from 0 to 100, not -1",
        "RETRY_JITTER: must be a number, not 'lots'",
        "DRY_RUN: must be true or false, not 'maybe'",
    ]


@pytest.mark.parametrize("text", ["3.0", "three", "0x3", "101", "9" * 5000, "3\x00", "nan"])
def test_an_integer_is_digits_within_bounds(text: str) -> None:
    with pytest.raises(SettingsError, match="MAX_RETRIES: must be an integer") as caught:
        read_env(SPEC, {"MAX_RETRIES": text})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "1.01", "1s", "0,5"])
def test_a_number_is_finite_and_within_bounds(text: str) -> None:
    with pytest.raises(SettingsError, match="RETRY_JITTER: must be a number"):
        read_env(SPEC, {"RETRY_JITTER": text})


def test_a_number_without_bounds_must_still_be_finite() -> None:
    assert Setting(float).parse("X", "-1e250") == -1e250
    assert Setting(int).parse("X", "-5") == -5
    for text in ("nan", "inf", "1e301"):
        with pytest.raises(SettingsError):
            Setting(float).parse("X", text)


def test_a_wrong_choice_is_answered_with_the_right_ones() -> None:
    with pytest.raises(SettingsError, match="must be one of immediate, fixed, exponential, not 'linear'"):
        read_env(SPEC, {"RETRY_STRATEGY": "linear"})


@pytest.mark.parametrize("text", ["a\x00b", "a\nb", "\x1b[31m", "x" * 20_000])
def test_a_text_can_be_printed(text: str) -> None:
    with pytest.raises(SettingsError, match="must be a text that can be printed") as caught:
        read_env(SPEC, {"KAFKA_TOPIC": text})
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
