"""No file is too strange to be a settings file, or to be refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutation import mutated, mutations
from relance.errors import SettingsError
from relance.settings import Settings

GOOD = b"""[relance]
group = "g"
bootstrap_servers = "a:1,b:2"
drain_timeout = 5
create_topics = true
max_buffered_records = 3

[relance.client]
security.protocol = "SASL_SSL"
"linger.ms" = 5
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings") / "relance.toml"


def outcome(file: Path) -> Settings | SettingsError:
    try:
        return Settings.load(file, {})
    except SettingsError as error:
        return error


@given(st.binary(max_size=200) | st.builds(mutated, st.just(GOOD), mutations))
def test_any_file_gives_settings_or_says_what_is_wrong_with_it(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    settings = outcome(file)
    if isinstance(settings, SettingsError):
        named = (str(file), *Settings.__slots__)
        assert all(key.startswith(named) for key, _ in settings.problems), settings.problems
        return
    assert settings.drain_timeout < settings.max_poll_interval / 3
    assert not {"plugin.library.paths", "sasl.password"} & settings.client.keys()
