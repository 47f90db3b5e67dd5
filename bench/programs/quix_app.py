"""Quix Streams: a dataframe of raw values; poison goes to the dead-letter topic by its own producer."""

from __future__ import annotations

from common import InvalidOrderError, Tally, envelope, letters_in, report, the_job, versions
from quixstreams import Application

COMMIT_EVERY = 1.0  # seconds; as often as the others


def main() -> None:
    job = the_job()
    tally = Tally(job)
    handle = tally.handler()
    app = Application(
        broker_address=job.bootstrap,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        loglevel="WARNING",
        auto_create_topics=False,
        commit_interval=COMMIT_EVERY,
    )
    frame = app.dataframe(app.topic(job.topic, value_deserializer="bytes"))
    if job.work == "poison":

        def judged(value: bytes) -> bytes | None:
            try:
                handle(value)
            except InvalidOrderError as error:
                return envelope(job.topic, None, None, None, value, error)
            return None

        letters = frame.apply(judged).filter(lambda letter: letter is not None)
        letters.to_topic(app.topic(job.dead_letter_topic, value_serializer="bytes"))
    else:
        frame.update(handle)
    tally.watch(then=app.stop, dead=letters_in(job) if job.work == "poison" else None)
    app.run()
    settings = {"commit_interval": COMMIT_EVERY, "auto_offset_reset": "earliest"}
    report(tally, settings, versions("quixstreams", "confluent-kafka", "msgspec"))


main()
