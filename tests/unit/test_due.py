"""The heap of what waits: when it comes out, in which order, and what cancelling leaves behind."""

from relance.engine.due import DueHeap


def test_nothing_comes_out_before_it_is_due() -> None:
    heap: DueHeap[str] = DueHeap()
    heap.push(5.0, "a")
    assert heap.pop_due(4.999999) == []
    assert heap.pop_due(5.0) == ["a"]
    assert heap.pop_due(100.0) == []


def test_what_is_due_comes_earliest_first_and_equals_in_the_order_they_came() -> None:
    heap: DueHeap[str] = DueHeap()
    for due, item in [(3.0, "late"), (1.0, "first"), (2.0, "x"), (1.0, "second"), (9.0, "not yet")]:
        heap.push(due, item)
    assert heap.pop_due(3.0) == ["first", "second", "x", "late"]
    assert len(heap) == 1


def test_what_cannot_be_compared_may_wait_for_the_same_time() -> None:
    heap: DueHeap[object] = DueHeap()
    items = [object(), object()]
    for item in items:
        heap.push(1.0, item)
    assert heap.pop_due(1.0) == items


def test_a_cancelled_item_neither_comes_out_nor_counts() -> None:
    heap: DueHeap[str] = DueHeap()
    ticket = heap.push(1.0, "a")
    heap.push(2.0, "b")
    heap.cancel(ticket)
    assert len(heap) == 1
    assert heap.next_due() == 2.0
    assert heap.pop_due(9.0) == ["b"]


def test_cancelling_twice_or_too_late_is_no_error_and_takes_nobody_else() -> None:
    heap: DueHeap[str] = DueHeap()
    first = heap.push(1.0, "a")
    assert heap.pop_due(1.0) == ["a"]
    heap.push(2.0, "b")
    heap.cancel(first)
    heap.cancel(first)
    assert heap.pop_due(2.0) == ["b"]


def test_an_empty_heap_has_no_next_due_time() -> None:
    heap: DueHeap[str] = DueHeap()
    assert heap.next_due() is None
    heap.cancel(heap.push(1.0, "a"))
    assert heap.next_due() is None


def test_cancelled_items_do_not_pile_up() -> None:
    heap: DueHeap[int] = DueHeap()
    heap.push(1e9, -1)
    for i in range(10_000):
        heap.cancel(heap.push(1e9 + i, i))
    assert len(heap._heap) < 200
    assert heap.pop_due(2e9) == [-1]
