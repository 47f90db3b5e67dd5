"""Reads a dead letter as the course defines it.

Promise: one that lacks a field of the nine is a failed check, not a surprise later on.
"""

from __future__ import annotations

import json
from typing import Any

from stack.cluster import Seen
from stack.validate.lab import CheckFailedError

ENVELOPE = (
    "originalTopic",
    "originalPartition",
    "originalOffset",
    "originalKey",
    "originalValue",
    "errorMessage",
    "errorTimestamp",
    "retryCount",
    "stackTrace",
)
"""The nine fields of the course's dead letter."""


def envelope_of(dead: Seen) -> dict[str, Any]:
    """Its JSON object; {} if it isn't one."""
    try:
        value = json.loads(dead.value or b"null")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def checked_envelope(dead: Seen) -> dict[str, Any]:
    """Its JSON object with all nine fields. Raises CheckFailedError, naming what is missing."""
    envelope = envelope_of(dead)
    missing = [name for name in ENVELOPE if name not in envelope]
    if missing:
        raise CheckFailedError(
            f"the dead letter {dead.topic} P{dead.partition}:O{dead.offset} lacks {', '.join(missing)}"
        )
    return envelope
