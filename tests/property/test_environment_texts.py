"""No text of an environment variable crashes a start, or gets through where it should not."""

import math

from hypothesis import given
from hypothesis import strategies as st

from relance.environment import Setting
from relance.errors import SettingsError
from relance.settings import Settings

texts = st.text(max_size=60) | st.from_regex(r"[-+]?[0-9]{1,30}(\.[0-9]{1,5})?(e[0-9]{1,4})?", fullmatch=True)
kinds = st.sampled_from([bool, int, float, str])


@given(kinds, texts, st.integers(-100, 100), st.integers(0, 100))
def test_a_text_becomes_a_value_of_its_kind_within_its_bounds_or_a_problem(
    kind: type, text: str, low: int, width: int
) -> None:
    setting = Setting(kind, low=low, high=low + width)
    try:
        value = setting.parse("KEY", text)
    except SettingsError as error:
        assert error.key == "KEY"
        return
    assert type(value) is kind
    if kind in (int, float):
        assert math.isfinite(value)
        assert low <= value <= low + width


variables = st.sampled_from(
    ["GROUP", "BOOTSTRAP_SERVERS", "DRAIN_TIMEOUT", "START", "MAX_BUFFERED_BYTES", "LOG_LEVEL"]
)


@given(st.dictionaries(variables.map("RELANCE_".__add__), texts))
def test_any_environment_gives_settings_or_names_its_variables(env: dict[str, str]) -> None:
    try:
        settings = Settings.load(env=env)
    except SettingsError as error:
        # A rule between two settings names the fields, a wrong text its variable.
        assert all(key in env or key in Settings.__slots__ for key, _ in error.problems)
        return
    assert settings == Settings.load(env=env)
    assert settings.drain_timeout < settings.max_poll_interval / 3
