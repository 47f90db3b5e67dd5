"""A world in memory for tests of handlers: the same engine as on Kafka, and a clock that only the test moves.

    from relance.testing import World

    with World(app) as world:
        world.produce("orders", {"id": "a", "amount": -1})
        world.run()
        assert world.dead_letters()[0].original_offset == 0

See docs/testing.md. Nothing here is imported by `import relance`.
"""

from relance.testing.world import Call, StoredRecord, World

__all__ = ["Call", "StoredRecord", "World"]
