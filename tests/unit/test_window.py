"""The windows a circuit breaker judges by: what they count, and what they hold."""

import sys

from relance.policies.window import MAX_NAMED, CountWindow, TimeWindow


def sums(window: CountWindow[str] | TimeWindow[str]) -> tuple[int, int, int]:
    return window.calls, window.failed, window.slow


def test_a_count_window_keeps_the_last_calls_however_old() -> None:
    window: CountWindow[str] = CountWindow(3)
    window.failed_with(0.0, "a", slow=True)
    window.failed_with(1.0, "b", slow=False)
    window.succeeded(2.0, slow=True)
    assert (sums(window), window.failures()) == ((3, 2, 2), ("a", "b"))
    window.advance(1e9)
    window.succeeded(1e9, slow=False)
    assert (sums(window), window.failures()) == ((3, 1, 1), ("b",))


def test_a_time_window_lets_a_second_go_as_a_whole() -> None:
    window: TimeWindow[str] = TimeWindow(2)
    window.failed_with(10.0, "a", slow=True)
    window.succeeded(10.9, slow=True)
    window.failed_with(11.5, "b", slow=False)
    window.advance(11.999)
    assert (sums(window), window.failures()) == ((3, 2, 2), ("a", "b"))
    window.advance(12.0)
    assert (sums(window), window.failures()) == ((1, 1, 0), ("b",))
    window.advance(1e9)
    assert (sums(window), window.failures()) == ((0, 0, 0), ())


def test_a_clock_that_steps_back_stands_still() -> None:
    window: TimeWindow[str] = TimeWindow(2)
    window.succeeded(10.0, slow=False)
    window.failed_with(5.0, "late", slow=False)  # read before the lock was taken, say
    window.advance(11.0)
    assert (sums(window), window.failures()) == ((2, 1, 0), ("late",))
    window.advance(12.0)
    assert (sums(window), window.failures()) == ((0, 0, 0), ())


def test_a_busy_time_window_counts_all_and_names_the_newest_failures() -> None:
    window: TimeWindow[int] = TimeWindow(60)
    for token in range(MAX_NAMED + 5):
        window.failed_with(token / 1_000, token, slow=False)
    assert window.failed == MAX_NAMED + 5
    assert window.failures() == tuple(range(5, MAX_NAMED + 5))


def test_memory_is_bounded_by_the_window_and_not_by_the_traffic() -> None:
    count: CountWindow[int] = CountWindow(100)
    time: TimeWindow[int] = TimeWindow(10)
    for token in range(50_000):
        count.failed_with(token, token, slow=True)
        time.succeeded(token, slow=True)
    assert sums(count) == (100, 100, 100)  # type: ignore[arg-type]
    assert sums(time) == (10, 0, 10)  # type: ignore[arg-type]
    assert sys.getsizeof(count._ring) < 5_000
    assert sys.getsizeof(time._buckets) < 2_000
