"""The limit for Python: a loop by hand over confluent-kafka, a commit after each batch, nothing else.

Peers `bare` and `bare-default`: the first takes away what stalls the client's fetcher, the second is as
shipped.
"""

from __future__ import annotations

from common import InvalidOrderError, Tally, envelope, report, the_job, versions
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

BATCH = 500


def main() -> None:
    job = the_job()
    # By default fetching rests for a second whenever the local queue is full.
    tuned = {"fetch.queue.backoff.ms": 1} if job.peer == "bare" else {}
    settings = {"auto.offset.reset": "earliest", "enable.auto.commit": False, **tuned}
    consumer = Consumer({"bootstrap.servers": job.bootstrap, "group.id": job.group, **settings})
    producing = {"linger.ms": 5}
    producer = Producer({"bootstrap.servers": job.bootstrap, **producing})
    tally = Tally(job)
    handle, poison = tally.handler(), job.work == "poison"
    consumer.subscribe([job.topic])
    tally.watch()
    while not tally.complete:
        messages = consumer.consume(BATCH, 1.0)
        letters = 0
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
            try:
                handle(message.value())
            except InvalidOrderError as error:
                letters += 1
                letter = envelope(
                    message.topic(),
                    message.partition(),
                    message.offset(),
                    message.key(),
                    message.value(),
                    error,
                )
                producer.produce(job.dead_letter_topic, letter, message.key())
        if poison:
            if producer.flush():
                raise RuntimeError("dead letters are not acknowledged")
            tally.dead += letters
        if messages:
            consumer.commit(asynchronous=True)
    tally.finished.wait()
    try:
        consumer.commit(asynchronous=False)
    except KafkaException as error:
        if error.args[0].code() != KafkaError._NO_OFFSET:  # the last batch's commit has said it all
            raise
    consumer.close()
    report(
        tally,
        {"client": settings, "producer": producing, "batch": BATCH},
        versions("confluent-kafka", "msgspec"),
    )


main()
