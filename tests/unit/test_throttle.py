"""What brokers say of a wait, told once; the clock is moved by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from relance.kafka.throttle import Throttle
from world import FakeClock


def wait(seconds: float) -> Any:
    return SimpleNamespace(broker_id=1, throttle_time=seconds)


def test_a_wait_is_told_while_it_lasts_and_logged_once_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    throttle = Throttle("orders", clock=clock.monotonic)
    assert throttle.told() is None
    throttle.note(wait(0.05))
    assert throttle.told() is None, "less than a tenth of a second is no news"
    for seconds in (30.0, 0.0, 20.0):
        throttle.note(wait(seconds))
        assert throttle.told() == "throttled by the broker, for 30000 ms (a quota of the cluster)"
        clock.advance(1.0)
    clock.advance(32.0)
    assert throttle.told() is not None, "the next wait is near"
    clock.advance(1.0)
    assert throttle.told() is None
    throttle.note(wait(2.0))
    assert "for 2000 ms" in str(throttle.told())
    assert caplog.text.count("throttled by the broker, which holds it back for 30000 ms") == 1
    assert caplog.text.count("throttled by") == 1
    clock.advance(303.0)
    throttle.note(wait(3.0))
    assert caplog.text.count("throttled by") == 2
