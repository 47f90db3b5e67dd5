"""Runs the labs' checkpoint list against the running stack and names the cause of the first failure.

Promise: every wait is bounded, the simulation flag ends up off, and as many consumers run as before.
"""

from stack.validate.runner import validate

__all__ = ["validate"]
