"""What is known of how much a topic takes at once; the clock is moved by hand."""

from __future__ import annotations

from typing import cast

import pytest

from relance.errors import BrokerUnavailableError, RelanceError
from relance.kafka.admin import Admin
from relance.kafka.limits import ALONE, TopicLimits, batch_settings
from relance.outgoing import LARGEST, MAX_RECORD
from world import FakeClock


class Cluster:
    """Answers with what `settings` holds; raises it where it is an error."""

    def __init__(self, **settings: object) -> None:
        self.settings = settings
        self.asked: list[str] = []

    def configs(self, topic: str, *, defaults: bool) -> dict[str, str | None]:
        assert defaults
        self.asked.append(topic)
        found = self.settings[topic]
        if isinstance(found, Exception):
            raise found
        return cast("dict[str, str | None]", found)


def takes(size: int, segment: int = 1 << 30) -> dict[str, str]:
    return {"max.message.bytes": str(size), "segment.bytes": str(segment)}


def learned(limits: TopicLimits, **settings: object) -> Cluster:
    cluster = Cluster(**settings)
    limits.learn(cast("Admin", cluster))
    return cluster


@pytest.mark.parametrize(
    ("size", "batch"),
    [
        (2_000_000, 1_000_000),
        (1_000_000, 1_000_000),
        (999_999, 524_288),
        (5_000, 4_096),
        (4_096, 4_096),
        (1_024, 1_024),
        (1_023, ALONE),
    ],
)
def test_a_batch_is_never_larger_than_its_topic_takes(size: int, batch: int) -> None:
    limits = TopicLimits({}, ["t"])
    assert limits.batch("t") == 1_000_000
    learned(limits, t=takes(size))
    assert limits.batch("t") == batch
    assert limits.max_record("t") == size


def test_a_segment_bounds_a_batch_too_and_the_client_s_own_size_is_the_largest() -> None:
    limits = TopicLimits({"batch.size": "20000"}, ["t", "u"])
    learned(limits, t=takes(1_000_000, segment=5_000), u=takes(1_000_000_000))
    assert (limits.batch("t"), limits.batch("u"), limits.batch("unknown")) == (4_096, 20_000, 20_000)
    assert limits.smallest(["t", "u"]) == 4_096
    assert limits.smallest([]) == 20_000
    assert (limits.max_record("u"), limits.max_record("unknown")) == (LARGEST, MAX_RECORD)
    assert batch_settings(ALONE) == {"batch.num.messages": 1}
    assert batch_settings(4_096) == {"batch.size": 4_096}


def test_after_a_refusal_a_topic_gets_one_record_at_a_time_until_its_settings_are_read_anew() -> None:
    clock = FakeClock()
    limits = TopicLimits({}, ["t"], clock=clock.monotonic)
    learned(limits, t=takes(1_000_000))
    clock.advance(1.0)
    limits.refused("t")
    assert limits.batch("t") == ALONE
    clock.advance(1.0)
    learned(limits, t=takes(5_000))
    assert limits.batch("t") == 4_096
    learned(limits, t=takes(1_000_000))
    assert limits.batch("t") == 1_000_000


def test_an_answer_to_a_question_from_before_a_refusal_says_nothing_against_it() -> None:
    clock = FakeClock()
    limits = TopicLimits({}, ["t"], clock=clock.monotonic)
    limits.refused("t")
    learned(limits, t=takes(1_000_000))
    assert limits.batch("t") == ALONE


def test_where_nobody_may_ask_a_refusal_counts_for_five_minutes() -> None:
    clock = FakeClock()
    limits = TopicLimits({}, ["t"], clock=clock.monotonic)
    assert not limits.said("t")
    learned(limits, t=RelanceError("not authorised"))
    assert limits.said("t")
    assert limits.batch("t") == 1_000_000
    limits.refused("t")
    clock.advance(299.0)
    learned(limits, t=RelanceError("not authorised"))
    assert limits.batch("t") == ALONE
    clock.advance(1.0)
    assert limits.batch("t") == 1_000_000


def test_what_nobody_answered_is_still_wanted_and_what_is_ordinary_is_asked_once() -> None:
    limits = TopicLimits({})
    limits.want("small")
    limits.want("large")
    assert limits.wanted.is_set()
    away = BrokerUnavailableError("away")
    assert learned(limits, small=away, large=away).asked == ["large"]
    assert not limits.said("large")
    cluster = learned(limits, small=takes(5_000), large=takes(5_000_000))
    assert cluster.asked == ["large", "small"]
    assert not limits.wanted.is_set()
    assert learned(limits, small=takes(5_000)).asked == ["small"]
    limits.refused("large")
    assert learned(limits, small=takes(5_000), large=takes(5_000)).asked == ["large", "small"]
