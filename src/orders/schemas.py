"""The answers, as OpenAPI describes them and as the code builds them; every number is defined here.

The names are the contract of the course's own applications, kept although some of them say a thing twice.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from orders.model import DEFAULT_STATUS, MAX_ORDER_ID, MAX_STATUS


class Answer(BaseModel):
    """The root of all answers: nothing undeclared in them."""

    model_config = ConfigDict(extra="forbid", field_title_generator=lambda name, _: name)


class Problem(BaseModel):
    """What went wrong (RFC 9457). Some problems have further members, declared beside them."""

    model_config = ConfigDict(field_title_generator=lambda name, _: name)

    type: str = Field(description="`about:blank`, or a URN that a program can compare")
    title: str
    status: int
    detail: str
    instance: str = Field(description="the path that was asked")


class NotSent(Problem):
    """Kafka did not acknowledge in time, or could not be reached."""

    orderMayHaveBeenWritten: bool | None = Field(
        default=None,
        description="true: it may be in the topic all the same, so sending it again may make a duplicate. "
        "Absent where nothing was to be written.",
    )


class Accepted(Answer):
    """The order is in the topic: the broker has acknowledged it."""

    status: Literal["ACCEPTED"] = "ACCEPTED"
    orderId: str
    partition: int
    offset: int
    message: str


class Rejected(Answer):
    """The order breaks a rule. It is in the dead-letter topic: the broker has acknowledged it there."""

    status: Literal["REJECTED"] = "REJECTED"
    orderId: str | None = Field(description="as it came; null where it is missing")
    error: str = Field(description='"Validation failed: " and the rule')
    action: Literal["Sent to DLT"] = "Sent to DLT"


class BatchAccepted(Answer):
    """All orders of the batch are in the topic."""

    status: Literal["ACCEPTED"] = "ACCEPTED"
    batchId: str = Field(description="the orders are `BATCH-<batchId>-1` and so on")
    count: int
    partitions: dict[str, int] = Field(description="partition to number of orders")
    message: str


class Simulation(Answer):
    """The switch of lab 3, shared by the whole group."""

    simulateTransientError: bool
    message: str


Success = Annotated[int, Field(description="orders handled well")]
Errors = Annotated[int, Field(description="attempts that failed, the first ones and the retries")]
Retries = Annotated[int, Field(description="retries scheduled")]
Dlt = Annotated[
    int, Field(description="dead letters written: by the consumers, and by the API for orders it refused")
]


class InstanceStats(Answer):
    """One instance's share; an instance goes on from its own numbers when it restarts."""

    instance: str
    role: str
    up: bool = Field(
        description="false: it said goodbye, or was silent for 10 s. Its numbers go on counting, its "
        "partitions are another's"
    )
    success: Success
    errors: Errors
    retries: Retries
    dlt: Dlt
    partitions: list[int]


class GroupStats(Answer):
    """The whole group's numbers, each instance's share beside them; the sums are those of the shares.

    Others' shares are at most about a quarter of a second old; this instance's are live.
    """

    success: Success
    errors: Errors
    dlt: Dlt
    retries: Retries
    messagesRetried: int = Field(description="the same as `retries`")
    messagesSentToDlt: int = Field(description="the same as `dlt`")
    processingErrors: int = Field(description="the same as `errors`")
    instances: list[InstanceStats]


class ConsumerStats(Answer):
    """The numbers of this process alone, since it started."""

    instance: str
    role: str
    messagesProcessed: int = Field(
        description="records that this process has finished with: handled well, or dead-lettered"
    )
    success: Success
    errors: Errors
    retries: Retries
    dlt: Dlt
    inFlight: int = Field(description="records being handled now")
    waiting: int = Field(description="records waiting for a retry's time")
    partitionsAssigned: int = Field(description="the number of partitions that it owns")
    partitions: list[int]
    rebalanceCount: int
    lastRebalanceTime: str | None = Field(description="UTC, ISO 8601; null before the first")
    circuitBreakerOpen: bool = Field(description="false: this service runs without a breaker")


class Partitions(Answer):
    """The partitions of the orders topic that this instance owns now."""

    partitions: list[int]
    count: int


class DltCount(Answer):
    """The records in the dead-letter topic, counted there and not in memory."""

    dltTopic: str
    count: int
    dltCount: int = Field(description="the same as `count`")


class DltMessage(Answer):
    """One dead letter."""

    key: str | None
    originalTopic: str
    originalPartition: int | None = Field(
        description="null for an order that the API refused before it was a record"
    )
    originalOffset: int | None
    originalValue: str | None = Field(description="cut after 4,096 characters")
    originalValueEncoding: str = Field(description="utf-8, or base64 for other bytes")
    errorReason: str
    errorClass: str | None
    attempts: int = Field(description="tries, the first included; 1 for an order that the API refused")
    retryCount: int = Field(description="`attempts` less the first")
    failedAt: str | None = Field(description="UTC, ISO 8601")
    consumerGroup: str | None


class DltMessages(Answer):
    """The newest dead letters, newest first."""

    count: int = Field(description="the number of messages here")
    messages: list[DltMessage]


class HealthAnswer(Answer):
    """UP, or DOWN with the reasons; waiting retries and a lack of partitions are no reasons."""

    status: Literal["UP", "DOWN"]
    reasons: list[str]
    instance: str
    role: str
    details: dict[str, Any]


ORDER_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Order",
    "required": ["orderId", "amount"],
    "properties": {
        "orderId": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_ORDER_ID,
            # Not blank, and without control characters.
            "pattern": r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
            "description": "the record's key",
        },
        "amount": {"type": "number", "minimum": 0},
        "status": {"type": "string", "maxLength": MAX_STATUS, "default": DEFAULT_STATUS},
    },
    "description": "Further fields are allowed and are written to the topic as they came.",
    "examples": [{"orderId": "ORD-1", "amount": 100, "status": "PENDING"}],
}
