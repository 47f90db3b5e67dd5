"""The peers: which program measures each, where it lives, and what is set for it in each work.

Promise: each peer as its own documentation would tune it for the work; what is set is in the JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Peer:
    """`home`: "own" is the project's environment, "java" the Maven build, else a file in requirements/."""

    name: str
    program: str
    home: str
    title: str = ""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For Java: the options of each work."""


_SPRING_BATCH = ("--mode", "batch", "--concurrency", "6")
_SPRING_SINGLE = ("--concurrency", "6")

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("relance", "relance_app.py", "own"),
        Peer("relance-default", "relance_app.py", "own", "relance, as shipped"),
        # The same client, in the same environment, as relance: only the loop differs.
        Peer("bare", "hand_loop.py", "own", "hand loop over confluent-kafka, tuned"),
        Peer("bare-default", "hand_loop.py", "own", "hand loop over confluent-kafka, as shipped"),
        Peer("aiokafka", "aiokafka_loop.py", "aiokafka", "hand loop over aiokafka"),
        Peer("kafka-python", "kafka_python_loop.py", "kafka-python", "hand loop over kafka-python"),
        Peer("arroyo", "arroyo_processor.py", "arroyo", "Arroyo"),
        Peer(
            "faststream-confluent",
            "faststream_app.py",
            "faststream-confluent",
            "FastStream on confluent-kafka",
        ),
        Peer("quixstreams", "quix_app.py", "quixstreams", "Quix Streams"),
        Peer("faust", "faust_app.py", "faust", "Faust"),
        Peer(
            "spring",
            "spring",
            "java",
            "Spring Kafka",
            {
                "fast": _SPRING_BATCH,
                "poison": _SPRING_BATCH,
                "latency": ("--retry", "topics", *_SPRING_SINGLE),
            },
        ),
        Peer(
            "spring-blocking",
            "spring",
            "java",
            "Spring Kafka, blocking retries",
            {"latency": ("--retry", "blocking", *_SPRING_SINGLE)},
        ),
        Peer(
            "parallel-consumer",
            "pc",
            "java",
            "Confluent Parallel Consumer",
            {
                "fast": ("--mode", "batch", "--concurrency", "4"),
                "fast-key": ("--mode", "batch", "--concurrency", "4"),
                "poison": ("--mode", "batch", "--concurrency", "4"),
                "io": ("--sleep-ms", "10", "--concurrency", "1000"),
                "latency": ("--concurrency", "100"),
            },
        ),
    )
}
