"""The probe tells a Kafka, another program and nothing apart."""

from __future__ import annotations

import socket
import struct

import pytest
from broker_fakes import framed, kafka, listening

from relance.broker.probe import Answer, Member, ask, members


def test_a_kafka_is_known_by_its_answer_to_api_versions():
    with listening(kafka) as port:
        assert ask("127.0.0.1", port) is Answer.KAFKA


def test_a_kafka_that_knows_no_version_0_is_one_too():
    with listening(lambda request: framed(request, struct.pack(">hi", 35, 0))) as port:
        assert ask("127.0.0.1", port) is Answer.KAFKA


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
        b"\x00\x00\x00\x0a",
        b"\x7f\xff\xff\xff" * 4,
        b"\xff\xff\xff\xff" * 4,
        struct.pack(">iihi", 10, 1, 0, 0),  # the right form, and an answer to another request
    ],
    ids=["http", "closed", "cut short", "a huge length", "a negative length", "another correlation"],
)
def test_another_program_is_not_taken_for_a_kafka(answer):
    with listening(lambda _request: answer) as port:
        assert ask("127.0.0.1", port) is Answer.OTHER


@pytest.mark.parametrize(
    "body",
    [b"", struct.pack(">hi", 0, 0), struct.pack(">hi", 0, 3), struct.pack(">hihhh", 0, 1, 3, 0, 9)],
    ids=["empty", "no row", "fewer rows than said", "no row for the question itself"],
)
def test_an_answer_of_the_wrong_form_is_no_kafka(body):
    with listening(lambda request: framed(request, body)) as port:
        assert ask("127.0.0.1", port) is Answer.OTHER


def test_a_program_that_keeps_silent_counts_as_another_one():
    with listening(lambda _request: None) as port:
        assert ask("127.0.0.1", port, timeout=0.05) is Answer.OTHER


def test_a_port_without_a_listener_is_nothing():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert ask("127.0.0.1", bound.getsockname()[1]) is Answer.NOTHING


def test_a_name_that_nobody_knows_is_nothing():
    assert ask("no-such-host.invalid", 9092) is Answer.NOTHING


def test_the_members_are_read_from_the_metadata():
    rack = b"r1"
    first = struct.pack(">ih", 1, 9) + b"localhost" + struct.pack(">ih", 9092, -1)
    second = struct.pack(">ih", 2, 4) + b"::ab" + struct.pack(">ih", 9093, len(rack)) + rack
    body = struct.pack(">i", 2) + first + second + struct.pack(">ii", 1, 0)
    with listening(lambda request: framed(request, body)) as port:
        assert members("127.0.0.1", port) == (Member(1, "localhost", 9092), Member(2, "::ab", 9093))


@pytest.mark.parametrize("body", [b"", struct.pack(">i", 3), b"\xff" * 40])
def test_metadata_that_cannot_be_read_name_nobody(body):
    with listening(lambda request: framed(request, body)) as port:
        assert members("127.0.0.1", port) == ()
