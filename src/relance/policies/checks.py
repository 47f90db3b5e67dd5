"""Checks shared by everything a user configures; their promise: a wrong value never gets further than here.

They look at types before values, because Python would take True for 1, and an environment's "3" is not 3.
"""

from __future__ import annotations

from relance.errors import SettingsError

__all__ = ["integer", "number"]


def number(key: str, value: object, low: float, high: float, unit: str = "") -> float:
    """`value` as a float from `low` to `high`; raises SettingsError naming `key` for anything else."""
    # The comparison refuses NaN, and an int too large for a float, without converting either.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        of = f"{unit} " if unit else ""
        raise SettingsError(key, f"must be a number {of}from {low:g} to {high:g}, not {_show(value)}")
    return float(value)


def integer(key: str, value: object, low: int, high: int) -> int:
    """`value` as an int from `low` to `high`; raises SettingsError naming `key` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SettingsError(key, f"must be an integer from {low} to {high}, not {_show(value)}")
    return value


def _show(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**18:
        return "an integer that large"  # repr of a 5,000-digit integer raises
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
