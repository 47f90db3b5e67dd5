"""The log's one format: time, level, logger, message, one line each, to stdout.

Promise: what a record or a client sent can't forge a line or reach the terminal as a control sequence.
"""

from __future__ import annotations

import logging
import re
import sys
import time

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def visible(text: str) -> str:
    """The text with its control characters written out, as in `\\x1b`."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class PlainFormatter(logging.Formatter):
    """`2026-01-31T10:30:00.123Z INFO orders.consumer Order handled …`; a traceback has its own lines."""

    converter = staticmethod(time.gmtime)  # UTC, as all times of the service

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, its control characters made visible."""
        return visible(super().formatMessage(record))


def configure(level: int = logging.INFO) -> None:
    """Send every logger's lines to stdout in this format, the server's own among them."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(PlainFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # The server tells each step of its own start and stop; the service's lines say the same in fewer.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
