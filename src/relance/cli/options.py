"""What several commands take in the same form."""

from __future__ import annotations

from collections.abc import Iterable

from relance.errors import SettingsError
from relance.text import is_unicode, visible

__all__ = ["config_of"]


def config_of(pairs: Iterable[str] | None) -> dict[str, str]:
    """`--config NAME=VALUE`, as often as it was said; blanks around either count for nothing."""
    found: dict[str, str] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name.strip() or not is_unicode(pair):
            raise SettingsError("--config", f"must be NAME=VALUE, not {visible(pair)[:80]!r}")
        found[name.strip()] = value.strip()
    return found
