"""What `App.send` returns; its promise: it ends in `Sent` or raises SendError, in tasks and threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Generator
from typing import Any, NamedTuple

from relance.errors import SendError

__all__ = ["Delivery", "Sent"]


class Sent(NamedTuple):
    """Where an acknowledged record lies.

    `offset` is -1 where nobody says it: an answer was lost, the client wrote again, and the broker said only
    that it has the record already.
    """

    topic: str
    partition: int
    offset: int


class Delivery:
    """A write on its way: `await` it in a coroutine, or ask for its `result` in a thread.

    Not waiting for it is allowed; then nobody learns whether it was written.
    """

    def __init__(self) -> None:
        self._future: concurrent.futures.Future[Sent] = concurrent.futures.Future()
        # A cancelled waiter must not cancel the write: it is on its way whether or not somebody looks.
        self._future.set_running_or_notify_cancel()

    def __await__(self) -> Generator[Any, None, Sent]:
        return asyncio.wrap_future(self._future).__await__()

    def result(self, timeout: float | None = None) -> Sent:
        """Wait for the acknowledgement, at most `timeout` seconds.

        Raises SendError if the write failed, TimeoutError if it is still on its way. Not for use on an
        event loop, which it would block: await the delivery there.
        """
        return self._future.result(timeout)

    def done(self) -> bool:
        """Whether the write's fate is known."""
        return self._future.done()

    def answer(self, error: SendError | None, sent: Sent | None) -> None:
        """For the producer: settle it, once."""
        if sent is not None:
            self._future.set_result(sent)
        else:
            self._future.set_exception(error or SendError("no answer", maybe_written=True))
