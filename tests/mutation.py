"""Damage done to bytes that were right: what a fuzzer does, drawn and shrunk by Hypothesis.

A change sets, inserts, deletes, repeats or moves some bytes. A few of them leave enough right to get deep
into a decoder, where arbitrary bytes fail at the door.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

_PIECES = st.sampled_from(
    [
        b"",
        b"\0",
        b"\xff",
        b"\x80",
        b"-1",
        b"1e400",
        b"NaN",
        b"9" * 400,
        b'"',
        b"\\ud800",
        b"[[[[",
        b"null",
        b"{",
        b"}",
    ]
) | st.binary(max_size=4)

mutations = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["set", "insert", "cut", "repeat", "swap"]), _PIECES),
    min_size=1,
    max_size=4,
)
"""Places are fractions of the length, so that one change fits whatever it is done to."""


def mutated(raw: bytes, changes: Any) -> bytes:
    """`raw` with each of `changes` done to it."""
    for place, how, piece in changes:
        at = round(place * len(raw))
        if how == "set":
            raw = raw[:at] + piece + raw[at + len(piece) :]
        elif how == "insert":
            raw = raw[:at] + piece + raw[at:]
        elif how == "cut":
            raw = raw[:at] + raw[at + max(1, len(piece)) :]
        elif how == "repeat":
            raw = raw[:at] + raw[max(0, at - 8) : at] * 3 + raw[at:]
        else:
            raw = raw[at:] + raw[:at]
    return raw
