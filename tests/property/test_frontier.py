import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relance.engine import frontier
from relance.engine.frontier import Frontier
from relance.engine.offset_map import decode_map, encode_map


class FrontierAgainstASet(RuleBasedStateMachine):
    """The model: a plain set of open offsets and a position."""

    def __init__(self) -> None:
        super().__init__()
        self.frontier = Frontier(100)
        self.open: set[int] = set()
        self.position = 100
        self.seen_bases = [100]
        self.finished: set[int] = set()
        """Since the last transaction that took effect."""

    @rule(gaps=st.lists(st.integers(0, 3), min_size=1, max_size=8))
    def read(self, gaps: list[int]) -> None:
        offsets = []
        for gap in gaps:
            self.position += gap
            offsets.append(self.position)
            self.position += 1
        self.frontier.open(offsets)
        self.open |= set(offsets)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish_one(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.open)))
        self.frontier.finish_all([offset])
        self.open.remove(offset)
        self.finished.add(offset)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish_some_in_order(self, data: st.DataObject) -> None:
        some = sorted(data.draw(st.sets(st.sampled_from(sorted(self.open)))))
        self.frontier.finish_all(some)
        self.open -= set(some)
        self.finished |= set(some)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish_a_span_of_open_neighbours(self, data: st.DataObject) -> None:
        """Neighbours among the open ones, with gaps or without; the lowest, or above others."""
        ascending = sorted(self.open)
        start = data.draw(st.integers(0, len(ascending) - 1))
        some = ascending[start : start + data.draw(st.integers(1, len(ascending) - start))]
        if not self.frontier.finish_span(some[0], some[-1], len(some)):
            assert some[-1] - some[0] >= len(some)  # there are gaps, or it would have been cheap
            self.frontier.finish_all(some)
        self.open -= set(some)
        self.finished |= set(some)

    @rule()
    def look_at_what_is_unfinished(self) -> None:
        assert self.frontier.unfinished() == sorted(self.open)
        assert sum(map(len, self.frontier._open)) == len(self.open)  # nothing is left to be looked at again

    @precondition(lambda self: self.finished)
    @rule(data=st.data())
    def reopen_what_an_aborted_transaction_finished(self, data: st.DataObject) -> None:
        some = data.draw(st.sets(st.sampled_from(sorted(self.finished)), min_size=1))
        self.frontier.reopen(some)
        self.open |= some
        self.finished -= some
        self.seen_bases = [self.frontier.base]

    @rule()
    def take_effect(self) -> None:
        self.finished.clear()

    @rule(step=st.integers(0, 3))
    def reach_the_end(self, step: int) -> None:
        self.position += step
        self.frontier.advance(self.position)

    @rule()
    def move_to_a_new_owner(self) -> None:
        """The new owner reads again from the base and skips exactly what was finished."""
        base, map_ = self.frontier.base, self.frontier.map({})
        text, _ = encode_map(map_, "T")
        old_position, still_open = self.position, set(self.open)
        new = Frontier(base, decode_map(text, "T", base))
        again = [o for o in range(base, old_position) if not new.was_finished(o)]
        new.open(again)
        new.advance(old_position)
        assert still_open <= set(again)
        for o in again:
            if o not in still_open:  # gaps that were never records
                new.finish_all([o])
        self.frontier = new
        self.finished.clear()

    @invariant()
    def base_is_the_lowest_open(self) -> None:
        assert self.frontier.base == (min(self.open) if self.open else self.position)
        assert self.frontier.open_count == len(self.open)

    @invariant()
    def base_never_goes_back(self) -> None:
        self.seen_bases.append(self.frontier.base)
        assert self.seen_bases[-1] >= self.seen_bases[-2]


TestFrontier = FrontierAgainstASet.TestCase
TestFrontier.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30, unique=True))
def test_a_second_finish_of_an_offset_is_refused(offsets: list[int]) -> None:
    frontier = Frontier(0)
    frontier.open(sorted(offsets))
    frontier.finish_all([max(offsets)])
    with pytest.raises(ValueError, match="not open"):
        frontier.finish_all([max(offsets)])


class FrontierThatSweepsAtOnce(FrontierAgainstASet):
    """The same, with next to nothing kept above the base before it is swept out."""

    def __init__(self) -> None:
        super().__init__()
        self.kept_before, frontier._SWEEP = frontier._SWEEP, 1

    def teardown(self) -> None:
        frontier._SWEEP = self.kept_before


TestFrontierThatSweepsAtOnce = FrontierThatSweepsAtOnce.TestCase
TestFrontierThatSweepsAtOnce.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
