"""Exceptions on their way home from a child process."""

from __future__ import annotations

from relance.workers.travel import packed, unpacked


def test_an_exception_comes_home_with_the_chain_of_its_causes() -> None:
    """Whoever looks at `__cause__` (a rule of retry_on, a letter's reader) sees what the child saw."""
    last = KeyError("why")
    middle, error = ValueError("bad"), RuntimeError("worse")
    middle.__cause__, error.__cause__ = last, middle
    home = unpacked(packed(error))
    chain = [home, home.__cause__, home.__cause__ and home.__cause__.__cause__]
    assert [(type(one), str(one)) for one in chain] == [
        (RuntimeError, "worse"),
        (ValueError, "bad"),
        (KeyError, "'why'"),
    ]
    assert any("in the worker process" in note for note in home.__notes__)
