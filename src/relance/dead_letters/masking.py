"""A letter without what of the record may not be read; the promise: it says which parts it has hidden.

What its texts of errors may not hold is left out where they are made: see `telling`.
"""

from __future__ import annotations

import msgspec

from relance.dead_letters.envelope import DeadLetter, text_of
from relance.policies.masking import HIDDEN, Mask

__all__ = ["masked"]


def masked(letter: DeadLetter, mask: Mask) -> DeadLetter:
    """`letter` as `mask` lets it be written. Raises nothing: a letter comes from `build`, so it decodes."""
    if mask.hides_nothing:
        return letter
    hidden = []
    headers = tuple(
        msgspec.structs.replace(header, value=HIDDEN, encoding="utf-8")
        if header.value is not None and mask.hides_header(header.name)
        else header
        for header in letter.original_headers
    )
    value, encoding = letter.original_value, letter.original_value_encoding
    raw = letter.value_bytes()
    shown = mask.value(raw)
    if shown is not raw:
        value, encoding = text_of(shown)
        hidden.append("originalValue")
    if headers != letter.original_headers:
        hidden.append("originalHeaders")
    return msgspec.structs.replace(
        letter,
        original_value=value,
        original_value_encoding=encoding,
        original_headers=headers,
        masked=tuple(hidden),
    )
