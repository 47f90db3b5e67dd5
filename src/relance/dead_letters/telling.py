"""An error as text for others: the one place where it becomes one, so that no rule of `Mask` is bypassed.

Promise: whatever is written about a failed record (letter, retry headers, log lines, stats, health) comes
from a `Teller`, and holds neither what a pattern matches nor the value of a field or header that is hidden.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from relance.dead_letters import errortext
from relance.errors import DecodeError
from relance.policies.masking import Mask
from relance.policies.secrets import HIDDEN, Secrets

__all__ = ["OPEN", "Teller", "teller_of"]

_INPUT: Final = re.compile(r", input_value=[^\n]*")
_CUT_WORD: Final = re.compile(r"\S{1,200}…\Z")


class Teller:
    """How errors of one record, or of one batch, are told."""

    __slots__ = ("_hides", "_mask", "_secrets")

    def __init__(self, mask: Mask, secrets: Secrets) -> None:
        self._mask = mask
        self._secrets = secrets
        self._hides = not mask.hides_nothing

    def text(self, text: str) -> str:
        """A text that may quote the record."""
        if not self._hides:
            return text
        if self._mask.fields and ", input_value=" in text:
            # pydantic quotes what it refused, which a validator may have changed: it could not be found.
            text = _INPUT.sub("]", text)
        return self._mask.text(self._secrets.hide(text))

    def failure(self, error: BaseException) -> str:
        """`ClassName: text`, at most `errortext.MAX_SUMMARY` characters."""
        text = errortext.failure(error)
        if not self._hides or _quotes_nothing(error):
            return text
        if self._secrets.too_many:
            return f"{type(error).__name__}: {HIDDEN}"
        return self.text(_cut_back(text))

    def summary(self, error: BaseException, attempts: int) -> str:
        """As `errortext.summary`."""
        if not self._hides:
            return errortext.summary(error, attempts)
        return errortext.summary(error, attempts, self.failure, self.text)

    def trace(self, error: BaseException) -> str:
        """As `errortext.trace`; where there is too much to hide, without what the errors say."""
        if self._secrets.too_many:
            return errortext.stack(error, HIDDEN)
        if not self._hides or _quotes_nothing(error):
            return errortext.trace(error)
        # A pattern does not match what is cut in its middle.
        return self.text(errortext.trace(error, whole_words=True))


OPEN: Final = Teller(Mask(), Secrets())
"""Hides nothing."""


def teller_of(
    mask: Mask, records: Iterable[tuple[bytes | None, Callable[[], Iterable[tuple[str, bytes | None]]]]]
) -> Teller:
    """How errors are told that may quote any of `records`: each a value, and what gives its headers."""
    if not mask.hides_values:
        return Teller(mask, Secrets())
    values = (
        text for raw, headers in records for text in mask.values(raw, headers() if mask.headers else ())
    )
    return Teller(mask, Secrets(values))


def _quotes_nothing(error: BaseException) -> bool:
    """Whether it is what the JSON decoder says of bytes that are no JSON: a place, and no part of them.

    Of such a value each word is hidden. Most words of this error would be hidden with them, for nothing.
    """
    cause = error.__cause__
    return (
        type(error) is DecodeError
        and cause is not None
        and type(cause) in (msgspec.DecodeError, UnicodeDecodeError)
        and cause.__cause__ is None
        and cause.__context__ is None
        and not hasattr(error, "__notes__")
        and not hasattr(cause, "__notes__")
    )


def _cut_back(text: str) -> str:
    # A pattern does not match what is cut in its middle, so the word that was cut goes as a whole.
    return text if len(text) < errortext.MAX_SUMMARY else _CUT_WORD.sub("…", text)
