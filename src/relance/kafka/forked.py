"""Clients in a forked child, where their threads are not: to destroy one would be to wait for ever."""

from __future__ import annotations

import ctypes
import weakref

from relance.forks import forgotten_by_children

__all__ = ["kept_in_children"]


class _Clients:
    """By owner, the attribute that holds its client."""

    def __init__(self) -> None:
        self.held: weakref.WeakKeyDictionary[object, str] = weakref.WeakKeyDictionary()

    def forget(self) -> None:
        """Let Python never destroy them, not even when the interpreter ends."""
        for owner, attribute in list(self.held.items()):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(getattr(owner, attribute)))


_clients = _Clients()


def kept_in_children(owner: object, attribute: str) -> None:
    """What `owner` has as `attribute` is a client: a forked child must not destroy it."""
    forgotten_by_children(_clients.forget)
    _clients.held[owner] = attribute
