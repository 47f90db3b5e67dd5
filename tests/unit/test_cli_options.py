"""What several commands take in the same form."""

from __future__ import annotations

import pytest

from relance.cli.options import config_of
from relance.errors import SettingsError


def test_settings_are_pairs_and_blanks_around_them_count_for_nothing() -> None:
    assert config_of([" a.b = c=d ", "e="]) == {"a.b": "c=d", "e": ""}
    assert config_of(None) == {}


@pytest.mark.parametrize("pair", ["x", "=x", " =x", "\x1b[31m", "x=\udcff", "\udcff=x"])
def test_what_is_no_pair_is_named_without_its_control_characters(pair: str) -> None:
    with pytest.raises(SettingsError, match="--config: must be NAME=VALUE") as caught:
        config_of([pair])
    assert str(caught.value).isprintable()
