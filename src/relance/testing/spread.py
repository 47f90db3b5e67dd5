"""Spreads the partitions of some topics over the members of a group.

Promise: no member has two more than another, and as few partitions as possible change hands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from relance.record import TopicPartition

__all__ = ["moves"]

N = TypeVar("N")


def moves(
    tps: Sequence[TopicPartition], nodes: Sequence[N], owners: Mapping[TopicPartition, N]
) -> dict[TopicPartition, N]:
    """The new owner, one of `nodes`, of each of `tps` that changes hands."""
    most = -(-len(tps) // len(nodes))
    held: dict[N, list[TopicPartition]] = {node: [] for node in nodes}
    free: list[TopicPartition] = []
    for tp in tps:
        owner = owners.get(tp)
        if owner is not None and len(held[owner]) < most:
            held[owner].append(tp)
        else:
            free.append(tp)
    least = len(tps) // len(nodes)
    for node in nodes:  # a newcomer gets its share even where no member has more than `most`
        while len(held[node]) < least and not free:
            richest = max(nodes, key=lambda one: len(held[one]))
            free.append(held[richest].pop())
    found = {}
    for tp in free:
        poorest = min(nodes, key=lambda one: len(held[one]))
        held[poorest].append(tp)
        found[tp] = poorest
    return {tp: node for tp, node in found.items() if owners.get(tp) is not node}
