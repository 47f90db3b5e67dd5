"""The users' rebalance hooks; the promise: none runs on a polling thread, and none can break one.

They run in order on one thread of their own. `revoked` is waited for (its point is to act before the
partitions are gone), until the drain's deadline; a hook that raises is logged and counted.
"""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Callable

from relance.record import TopicPartition

__all__ = ["Hook", "Hooks"]

_log = logging.getLogger("relance.rebalance")

Hook = Callable[[list[TopicPartition]], None]


class Hooks:
    """Hooks of an application, and the log lines that the course greps for."""

    def __init__(self) -> None:
        self.on_assigned: list[Hook] = []
        self.on_revoked: list[Hook] = []
        self.on_lost: list[Hook] = []
        self.failures = 0
        """How many hook calls have raised."""
        self._executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="relance-hooks")

    def assigned(self, tps: list[TopicPartition]) -> None:
        """Partitions are ours now."""
        _log.info("[REBALANCE] Partitions assigned: %s", _names(tps))
        self._submit(self.on_assigned, tps)

    def revoked(self, tps: list[TopicPartition], timeout: float) -> None:
        """Partitions are about to go: what ran is drained, nothing is committed yet."""
        _log.info("[REBALANCE] Partitions revoked: %s", _names(tps))
        if not self.on_revoked:
            return
        done = self._submit(self.on_revoked, tps)
        try:
            done.result(timeout)
        except concurrent.futures.TimeoutError:
            _log.warning("[REBALANCE] on_revoked still runs after %.1f s: going on without it", timeout)

    def lost(self, tps: list[TopicPartition]) -> None:
        """Partitions are gone already, to another owner."""
        _log.warning("[REBALANCE] Partitions lost: %s", _names(tps))
        self._submit(self.on_lost, tps)

    def close(self) -> None:
        """Take no more calls."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _submit(self, hooks: list[Hook], tps: list[TopicPartition]) -> concurrent.futures.Future[None]:
        return self._executor.submit(self._call, list(hooks), sorted(tps))

    def _call(self, hooks: list[Hook], tps: list[TopicPartition]) -> None:
        for hook in hooks:
            try:
                hook(list(tps))
            except Exception:  # noqa: BLE001  a user's hook must not decide over partitions
                self.failures += 1
                _log.exception("[REBALANCE] hook %s raised", getattr(hook, "__qualname__", hook))


def _names(tps: list[TopicPartition]) -> str:
    return ", ".join(str(tp) for tp in sorted(tps)) or "none"
