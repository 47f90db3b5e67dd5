"""No text of an environment variable crashes a start, or gets through where it should not."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from relance.environment import Setting
from relance.errors import SettingsError
from relance.settings import Settings

texts = st.text(st.sampled_from("0123456789-+._e, :/aZé\u0663\x00\x1b\n"), max_size=40) | st.sampled_from(
    ["nan", "inf", "1e999", "true", "localhost:9092", "earliest", "INFO", "8", "9" * 5000]
)
kinds = st.sampled_from([bool, int, float, str])


def outcome(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except SettingsError as error:
        return error


@given(kinds, texts, st.integers(-100, 100), st.integers(0, 100))
def test_a_text_becomes_a_value_of_its_kind_within_its_bounds_or_a_problem(
    kind: type, text: str, low: int, width: int
) -> None:
    value = outcome(lambda: Setting(kind, low=low, high=low + width).parse("KEY", text))
    if isinstance(value, SettingsError):
        assert value.key == "KEY"
    else:
        assert type(value) is kind
        assert kind not in (int, float) or low <= value <= low + width


variables = st.sampled_from(
    ["GROUP", "BOOTSTRAP_SERVERS", "DRAIN_TIMEOUT", "START", "MAX_BUFFERED_BYTES", "LOG_LEVEL"]
)


@given(st.dictionaries(variables.map("RELANCE_".__add__), texts))
def test_any_environment_gives_settings_or_names_its_variables(env: dict[str, str]) -> None:
    settings = outcome(lambda: Settings.load(env=env))
    if isinstance(settings, SettingsError):
        # A rule between two settings names the fields, a wrong text its variable.
        assert all(key in env or key in Settings.__slots__ for key, _ in settings.problems)
    else:
        assert settings == Settings.load(env=env)
        assert settings.drain_timeout < settings.max_poll_interval / 3
