"""Goes through the list, one line for each item, and puts back what the checks changed.

Promise: the last line is `OK`, or `FAIL: ` and the cause; the status says the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import KafkaException

from stack import supervisor
from stack.cluster import Cluster
from stack.interrupts import deaf
from stack.settings import Settings, StackError
from stack.up import note_consumers
from stack.validate import labs, prerequisites, retry_lab
from stack.validate.lab import CheckFailedError, Lab

CHECKS: tuple[tuple[str, Callable[[Lab], str]], ...] = (
    ("Topics", prerequisites.topics),
    ("Services", prerequisites.answering),
    ("Group", prerequisites.group),
    ("Lab 1, valid orders handled", labs.valid_orders),
    ("Lab 2, invalid order to the DLT", labs.invalid_order),
    ("Lab 2, bad record around the API", labs.bad_records),
    ("Lab 3, retries observed", retry_lab.retries),
    ("Lab 3, retries exhausted", retry_lab.exhausted),
    ("Lab 3, success when switched off", retry_lab.recovers),
    ("Lab 4, rebalancing observed", labs.rebalancing),
    ("Lab 5, errors monitored", labs.monitoring),
)


def validate(settings: Settings) -> int:
    """Run the list; 0 if every item holds. The stack counts as it was started, not as this terminal says."""
    settings = supervisor.as_started(settings)
    since = time.monotonic()
    lab = Lab(settings, Cluster(settings), print)
    consumers = lab.consumers
    cause = None
    try:
        for number, (title, check) in enumerate(CHECKS):
            try:
                print(f"✓ {title}: {check(lab)}")
            except (CheckFailedError, StackError) as failure:
                cause = str(failure)
            except KafkaException as error:
                cause = f"Kafka refused while checking: {error.args[0].str()}"
            if cause is not None:
                print(f"✗ {title}: {cause}")
                for later, _ in CHECKS[number + 1 :]:
                    print(f"· {later}: not checked")
                break
    finally:
        with deaf():
            put_back(lab, consumers)
            lab.close()
    print(f"({time.monotonic() - since:.0f} s)")
    print("OK" if cause is None else f"FAIL: {' '.join(cause.split())}")
    return 0 if cause is None else 1


def put_back(lab: Lab, consumers: int) -> None:
    """The flag off, the extra consumers gone."""
    answer = lab.set_flag(False)
    if not answer.ok and answer.status:
        print(f"note: the simulation flag could not be switched off: {answer}")
    note_consumers(lab.settings, consumers)
    supervisor.stop(lab.settings, supervisor.surplus(lab.settings, consumers))
