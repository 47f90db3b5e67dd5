"""What becomes of a record that can't be handled; its promise: nothing of it is lost, and the cause is told.

`envelope` is the letter itself, `fingerprint` says which letters tell of the same bug, `ladder` makes a
letter fit into its topic. All are pure: `relance.kafka` writes the letters, `relance.app` reads them.
"""

from __future__ import annotations

from relance.dead_letters.envelope import (
    Attempt,
    DeadLetter,
    Header,
    PastAttempt,
    build,
    decode,
    encode,
    metadata_headers,
)
from relance.dead_letters.fingerprint import fingerprint
from relance.dead_letters.ladder import Fitted, TooLarge, fit

__all__ = [
    "Attempt",
    "DeadLetter",
    "Fitted",
    "Header",
    "PastAttempt",
    "TooLarge",
    "build",
    "decode",
    "encode",
    "fingerprint",
    "fit",
    "metadata_headers",
]
