"""Whether a task has kept its loop, or let others have their turn."""

from __future__ import annotations

import asyncio

from relance.workers.turns import Hold, Turns


def test_a_task_has_the_loop_from_when_it_began_until_it_suspends() -> None:
    async def main() -> None:
        hold = Hold(Turns(asyncio.get_running_loop()))
        assert hold.suspended(), "it never began"
        hold.begin(3.0)
        assert hold.since == 3.0
        assert not hold.suspended()
        await asyncio.sleep(0)
        assert hold.suspended()
        hold.begin(4.0)
        assert hold.since == 4.0
        assert not hold.suspended()

    asyncio.run(main())


def test_what_one_task_does_in_a_turn_is_no_suspension_of_another_that_began_in_it() -> None:
    async def main() -> None:
        turns = Turns(asyncio.get_running_loop())
        first, second = Hold(turns), Hold(turns)
        first.begin(1.0)
        await asyncio.sleep(0)
        second.begin(2.0)
        first.begin(3.0)
        assert not second.suspended()

    asyncio.run(main())


def test_a_turn_is_asked_for_once_however_many_want_to_know() -> None:
    class Loop:
        asked = 0

        def call_soon(self, ends: object) -> None:
            self.asked += 1

    loop = Loop()
    turns = Turns(loop)  # type: ignore[arg-type]
    for _ in range(5):
        Hold(turns).begin(0.0)
    assert loop.asked == 1
