"""The orders service with one fault, for the checks to find: it never sees the simulation flag."""

import sys

from orders.__main__ import main
from orders.state import SimulationFlag


async def never(_self: SimulationFlag, _stamp: int | None) -> bool:
    return False


SimulationFlag.enabled_at = never  # type: ignore[method-assign]

sys.exit(main())
