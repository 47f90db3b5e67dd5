"""What one setting may be, and a list of what is wrong, so that all of it is told at once.

Promise: a text or a value becomes one of the right type within its bounds, or a problem that names its key.
Whoever starts a service with three wrong variables learns of all three.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

from relance.errors import SettingsError
from relance.policies.checks import integer, number

__all__ = ["Problems", "Setting"]

T = TypeVar("T")
P = ParamSpec("P")

_TRUE: Final = ("true", "yes", "on", "1")
_FALSE: Final = ("false", "no", "off", "0")
_LONGEST: Final = 10_000


@dataclass(frozen=True, slots=True)
class Setting:
    """What one setting may be."""

    kind: type[bool] | type[int] | type[float] | type[str]
    """bool, int, float or str."""
    low: float = -math.inf
    """The least number, for int and float."""
    high: float = math.inf
    """The greatest number. NaN and infinities are refused whatever the bounds."""
    choices: tuple[str, ...] = ()
    """The only values that a str may have, where there are such."""
    unit: str = ""
    """What a number counts, for messages: "seconds"."""
    optional: bool = False
    """Whether None will do, too."""
    example: str = ""
    """What may stand there, for messages."""
    also: Callable[[str, str], str] | None = None
    """A further check of a str: (key, value) -> value, raising SettingsError."""

    def check(self, key: str, value: object) -> Any:
        """`value`, if it has the right type and bounds; a "3" is no 3 here. Raises SettingsError."""
        if value is None and self.optional:
            return None
        if self.kind is bool:
            if not isinstance(value, bool):
                raise SettingsError(key, f"must be true or false, not {_quote(value)}")
            return value
        if self.kind is int:
            return integer(key, value, _bound(self.low, -(2**63)), _bound(self.high, 2**63 - 1))
        if self.kind is float:
            of = f"of {self.unit}" if self.unit else ""
            return number(key, value, max(self.low, -1e300), min(self.high, 1e300), of)
        if not isinstance(value, str):
            raise SettingsError(key, f"must be a string, not {_quote(value)}")
        if self.also is not None:
            value = self.also(key, value)
        if self.choices and value not in self.choices:
            raise SettingsError(key, f"must be one of {', '.join(self.choices)}, not {_quote(value)}")
        if not value.strip():
            example = f", as {self.example!r}" if self.example else ""
            raise SettingsError(key, f"must be a text that is not empty{example}; it is {_quote(value)}")
        if len(value) > _LONGEST or not value.isprintable():
            raise SettingsError(key, f"must be a text that can be printed, not {_quote(value)}")
        return value

    def parse(self, key: str, text: str) -> Any:
        """`text`, as an environment variable holds it, as a checked value. Raises SettingsError."""
        stripped = text.strip()
        if self.kind is bool:
            if stripped.lower() not in _TRUE + _FALSE:
                raise SettingsError(key, f"must be true or false, not {_quote(text)}")
            return stripped.lower() in _TRUE
        if self.kind is str:
            return self.check(key, stripped)
        try:
            value = self.kind(stripped)
        except ValueError:
            what = "an integer" if self.kind is int else "a number"
            of = f" of {self.unit}" if self.unit else ""
            raise SettingsError(key, f"must be {what}{of}, not {_quote(text)}") from None
        return self.check(key, value)


class Problems:
    """Collects what is wrong, so that all of it can be told at once."""

    def __init__(self) -> None:
        self._found: list[tuple[str, str]] = []

    def attempt(self, check: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What `check` answers; where it raises a SettingsError, None, and the problem is kept."""
        try:
            return check(*args, **kwargs)
        except SettingsError as error:
            self._found.extend(error.problems)
            return None

    def raise_if_any(self) -> None:
        """Raise one SettingsError with all that was found."""
        if self._found:
            (key, problem), *more = self._found
            raise SettingsError(key, problem, *more)


def _bound(bound: float, otherwise: int) -> int:
    return int(bound) if math.isfinite(bound) else otherwise


def _quote(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or isinstance(value, bool) else f"{value:d}"[:60]
    return text if len(text) <= 60 else f"{text[:57]}..."
