"""What an App asks of its runner, as a world answers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relance.circuit import Circuit
from relance.errors import Fatal, RelanceError, SendError
from relance.testing.process import Node

if TYPE_CHECKING:
    from relance.testing.world import World

__all__ = ["WorldRunner"]


class WorldRunner:
    """What an App asks of its runner."""

    stopping = False
    watch = None
    in_memory = True

    def __init__(self, world: World) -> None:
        self._world = world
        self.producer = _Producer(world)

    @property
    def consumers(self) -> list[Node]:
        """Those of all processes that live."""
        return self._world._nodes()

    @property
    def circuits(self) -> list[Circuit]:
        """Those of all processes that live."""
        return [circuit for process in self._world._processes for circuit in process.circuits]

    @property
    def failure(self) -> Exception | None:
        """What has ended the application."""
        return self._world.failure

    @property
    def reason(self) -> str:
        """The words for that."""
        return self._world.reason

    def slowed(self) -> dict[str, dict[str, str]]:
        """No broker holds anybody up here."""
        return {}

    def stop(self) -> None:
        """Refuse, in a way that is no failure of a record: its other errors would be dead-lettered."""
        raise Fatal("app.stop() in a world in memory: leave its `with` block to stop the application")


class _Producer:
    """Writes at once."""

    def __init__(self, world: World) -> None:
        self._world = world

    def send(self, topic: str, value: bytes | None, *, key: bytes | None, headers: Any, answer: Any) -> None:
        try:
            sent = self._world.produce(topic, value, key=key, headers=headers)
        except SendError:
            raise
        except RelanceError as error:
            answer(SendError(str(error), maybe_written=False), None)
        else:
            answer(None, sent)
