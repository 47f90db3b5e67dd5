"""Looking into a dead-letter topic; its promise: what lies there, read from the topic and not from memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from relance.dead_letters.envelope import DeadLetter, decode, not_a_letter
from relance.errors import DecodeError
from relance.kafka.browse import Browser

__all__ = ["DeadLetters"]

_log = logging.getLogger("relance.dlt")


class DeadLetters:
    """The letters of one topic. Its methods block and raise BrokerUnavailableError or TopicMissingError."""

    def __init__(self, topic: str, bootstrap_servers: str, client: Mapping[str, Any]) -> None:
        self.topic = topic
        self._browser = Browser(bootstrap_servers, client)

    def count(self) -> int:
        """How many records the topic holds (compaction or transaction markers make it an upper bound)."""
        return self._browser.count(self.topic)

    def latest(self, n: int) -> list[DeadLetter]:
        """The `n` newest letters, newest first; fewer only where the topic holds no more.

        Raises RelanceError, too, where they take more than 256 MiB: ask for fewer then.

        A record that is no envelope comes as one: its bytes as the value, the reason as its error.
        """
        letters = []
        for record in self._browser.latest(self.topic, n):
            try:
                letters.append(decode(record.value))
            except DecodeError as error:
                _log.debug("%s-%d@%d: %s", self.topic, record.partition, record.offset, error)
                letters.append(not_a_letter(record.key, record.value, str(error)))
        return letters
