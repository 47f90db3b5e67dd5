"""Faust: one agent over raw values."""

from __future__ import annotations

import sys
import threading

import faust
from common import InvalidOrderError, Tally, decode, envelope, leave, report, the_job, versions


def main() -> None:
    job = the_job()
    tally = Tally(job)
    done = tally.done
    settings = {"consumer_auto_offset_reset": "earliest", "topic_disable_leader": True, "web_enabled": False}
    app = faust.App(job.group, broker=f"kafka://{job.bootstrap}", value_serializer="raw", **settings)
    source = app.topic(job.topic, value_type=bytes, value_serializer="raw")
    letters = app.topic(job.dead_letter_topic, value_serializer="raw")

    @app.agent(source, concurrency=1)
    async def handle(stream: faust.Stream[bytes]) -> None:
        async for value in stream:
            try:
                order = decode(value)
                if order.amount <= 0:
                    raise InvalidOrderError("Invalid amount")
                done(order.number)
            except InvalidOrderError as error:
                sent = await letters.send(value=envelope(job.topic, None, None, None, value, error))
                await sent  # until it is acknowledged
                tally.dead += 1

    def end() -> None:
        tally.finished.wait()
        report(tally, settings, versions("faust-streaming", "aiokafka", "msgspec"))
        leave()  # its own stop takes longer than the measurement

    tally.watch()
    threading.Thread(target=end, daemon=True).start()
    sys.argv = sys.argv[:1]
    faust.Worker(app, loglevel="WARN").execute_from_commandline()


main()
