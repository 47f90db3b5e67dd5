"""The Kafka error codes as a table: for each, which branch of the hierarchy it is on, and what to do.

Promise: pure data. It is keyed by the code's number, imports no Kafka client, and has a row for every code
that `confluent_kafka.KafkaError` names (a test compares the two). A code it doesn't know fails fast.

The hierarchy has three branches: retriable by the producer, retriable by the consumer, fatal. Two finer
words are needed to act on it: a rebalance is not retried but joined, and some fatal errors concern one
record only, so that the next may well succeed. Which broker code is retriable follows the protocol guide
(kafka.apache.org/protocol, "Error codes"), except where a client of ours must not wait in silence: an
unknown topic is retriable to the protocol, and fatal here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final


class KafkaErrorKind(Enum):
    """The branches of the hierarchy: who may try again, and who must fail fast."""

    RETRIABLE_PRODUCER = "retriable (producer)"
    """A write may be tried again. An idempotent producer does so by itself until its delivery timeout."""
    RETRIABLE_CONSUMER = "retriable (consumer)"
    """A read, a commit or a group request may be tried again, after what the action says."""
    RETRIABLE = "retriable"
    """Any request may be tried again: the network, a broker that is away, a client that is busy."""
    REBALANCE = "retriable (consumer, rebalance)"
    """The group moved on. What is still owned may be tried again; the rest is somebody else's now."""
    RECORD = "fatal (this record)"
    """This record, or this request, will be refused every time; others may succeed. Dead-letter it."""
    FATAL = "fatal"
    """Nothing will succeed until a person changes something. Fail fast and say what."""
    EVENT = "event"
    """Not an error: the client reports a state through the error channel."""

    @property
    def retriable(self) -> bool:
        """Whether trying again can help."""
        return self in _RETRIABLE_KINDS


_RETRIABLE_KINDS: Final = frozenset(
    {
        KafkaErrorKind.RETRIABLE,
        KafkaErrorKind.RETRIABLE_PRODUCER,
        KafkaErrorKind.RETRIABLE_CONSUMER,
        KafkaErrorKind.REBALANCE,
    }
)


@dataclass(frozen=True, slots=True)
class KafkaErrorRow:
    """What one code means for a client."""

    code: int
    """The number: negative for what librdkafka found itself, positive for a broker's answer."""
    name: str
    """The name without prefix, as `KafkaError.name()` gives it; a leading underscore marks a local code."""
    kind: KafkaErrorKind
    """The branch of the hierarchy."""
    action: str
    """A sentence that says what to do."""
    maybe_written: bool
    """For a failed write: False only where the record is known not to be in the topic."""

    @property
    def retriable(self) -> bool:
        """Whether trying again can help."""
        return self.kind.retriable

    def __str__(self) -> str:
        return f"{self.name} ({self.code}), {self.kind.value}: {self.action}"


_PRODUCER: Final = KafkaErrorKind.RETRIABLE_PRODUCER
_CONSUMER: Final = KafkaErrorKind.RETRIABLE_CONSUMER
_BOTH: Final = KafkaErrorKind.RETRIABLE
_REBALANCE: Final = KafkaErrorKind.REBALANCE
_RECORD: Final = KafkaErrorKind.RECORD
_FATAL: Final = KafkaErrorKind.FATAL
_EVENT: Final = KafkaErrorKind.EVENT

# One line of action for all the codes that ask for it, so that two codes with one cure can't drift apart.
# fmt: off
_GROUPS: Final[tuple[tuple[KafkaErrorKind, str, dict[int, str]], ...]] = (
    # -- retriable by anyone ---------------------------------------------------------------------------
    (_BOTH, "Wait for the broker to come back and try again; if it lasts, check its address and the"
     " network.",
     {-196: "_FAIL", -195: "_TRANSPORT", -193: "_RESOLVE", -187: "_ALL_BROKERS_DOWN",
      -137: "_DESTROY_BROKER", 8: "BROKER_NOT_AVAILABLE", 13: "NETWORK_EXCEPTION",
      129: "REBOOTSTRAP_REQUIRED"}),
    (_BOTH, "Try again with backoff: the answer did not come in time.",
     {-185: "_TIMED_OUT", -163: "_INTR", -153: "_RETRY"}),
    (_BOTH, "Try again shortly: the client is still finding its way (metadata, a request in flight).",
     {-182: "_NODE_UPDATE", -178: "_IN_PROGRESS", -177: "_PREV_IN_PROGRESS", -167: "_OUTDATED",
      -164: "_WAIT_CACHE", -146: "_UNKNOWN_BROKER", 41: "NOT_CONTROLLER", 72: "LISTENER_NOT_FOUND",
      116: "UNKNOWN_CONTROLLER_ID", 117: "UNKNOWN_SUBSCRIPTION_ID"}),
    (_BOTH, "Slow down: a quota is used up. Try again with backoff.",
     {89: "THROTTLING_QUOTA_EXCEEDED"}),
    (_BOTH, "Try again with backoff; if it lasts, look at the disks of that broker and at its log.",
     {56: "KAFKA_STORAGE_ERROR", 77: "STALE_BROKER_EPOCH"}),
    (_BOTH, "Try again: the partition's leader is moving and the metadata will catch up.",
     {6: "NOT_LEADER_FOR_PARTITION", 9: "REPLICA_NOT_AVAILABLE", 60: "REASSIGNMENT_IN_PROGRESS",
      74: "FENCED_LEADER_EPOCH", 75: "UNKNOWN_LEADER_EPOCH", 80: "PREFERRED_LEADER_NOT_AVAILABLE",
      83: "ELIGIBLE_LEADERS_NOT_AVAILABLE"}),
    (_BOTH, "The topic was deleted, perhaps made again under its name: refresh the metadata, forget old"
     " offsets.",
     {100: "UNKNOWN_TOPIC_ID", 103: "INCONSISTENT_TOPIC_ID"}),
    # -- retriable by a producer -----------------------------------------------------------------------
    (_PRODUCER, "Try again with backoff. The record may have been written: only an idempotent producer's"
     " own retry is free of duplicates.",
     {-192: "_MSG_TIMED_OUT", 7: "REQUEST_TIMED_OUT"}),
    (_PRODUCER, "Wait: too few replicas are in sync (min.insync.replicas). Commit no source offset"
     " meanwhile.",
     {-183: "_ISR_INSUFF", 19: "NOT_ENOUGH_REPLICAS", 20: "NOT_ENOUGH_REPLICAS_AFTER_APPEND"}),
    (_PRODUCER, "Wait for the election of a leader and try again.",
     {5: "LEADER_NOT_AVAILABLE"}),
    (_PRODUCER, "The local queue is full or was not served in time: poll the producer, then send again.",
     {-184: "_QUEUE_FULL", -166: "_TIMED_OUT_QUEUE"}),
    (_PRODUCER, "The client dropped it while closing or purging: send it again with the next producer.",
     {-152: "_PURGE_QUEUE", -151: "_PURGE_INFLIGHT"}),
    (_PRODUCER, "Try again: damaged on the way, or refused for its neighbour in the batch.",
     {2: "INVALID_MSG", -138: "_INVALID_DIFFERENT_RECORD"}),
    (_PRODUCER, "Try again shortly: the transaction before is still ending.",
     {51: "CONCURRENT_TRANSACTIONS"}),
    (_PRODUCER, "Abort the transaction and begin a new one.",
     {120: "TRANSACTION_ABORTABLE"}),
    # -- retriable by a consumer -----------------------------------------------------------------------
    (_CONSUMER, "Wait for the group's coordinator and try again.",
     {-180: "_WAIT_COORD", 14: "COORDINATOR_LOAD_IN_PROGRESS", 15: "COORDINATOR_NOT_AVAILABLE",
      16: "NOT_COORDINATOR"}),
    (_CONSUMER, "The position is not in the log: stop that partition, or start where on_out_of_range says.",
     {1: "OFFSET_OUT_OF_RANGE", -140: "_AUTO_OFFSET_RESET", -139: "_LOG_TRUNCATION"}),
    (_CONSUMER, "Fetch again: the leader has not caught up, or the fetch session is gone.",
     {-199: "_BAD_MSG", -198: "_BAD_COMPRESSION", -155: "_UNDERFLOW", 70: "FETCH_SESSION_ID_NOT_FOUND",
      71: "INVALID_FETCH_SESSION_EPOCH", 78: "OFFSET_NOT_AVAILABLE"}),
    (_CONSUMER, "A transaction holds the group's offsets: ask again until it ends.",
     {88: "UNSTABLE_OFFSET_COMMIT"}),
    (_CONSUMER, "Open a new share session; records that were acquired will be delivered again.",
     {121: "INVALID_RECORD_STATE", 122: "SHARE_SESSION_NOT_FOUND", 123: "INVALID_SHARE_SESSION_EPOCH",
      124: "FENCED_STATE_EPOCH", 133: "SHARE_SESSION_LIMIT_REACHED"}),
    (_CONSUMER, "Try again with backoff: another member of that instance id has not left yet.",
     {111: "UNRELEASED_INSTANCE_ID"}),
    # -- the group moved on ----------------------------------------------------------------------------
    (_REBALANCE, "Keep polling so that the rebalance can finish; then commit only what is still owned.",
     {-175: "_ASSIGN_PARTITIONS", -174: "_REVOKE_PARTITIONS", 27: "REBALANCE_IN_PROGRESS",
      79: "MEMBER_ID_REQUIRED"}),
    (_REBALANCE, "Take the new generation or epoch, and commit again only what is still owned.",
     {22: "ILLEGAL_GENERATION", 25: "UNKNOWN_MEMBER_ID", 110: "FENCED_MEMBER_EPOCH",
      113: "STALE_MEMBER_EPOCH"}),
    (_REBALANCE, "Drop the work of those partitions and commit nothing: they have new owners.",
     {-142: "_ASSIGNMENT_LOST"}),
    (_REBALANCE, "Keep polling from a thread that does nothing else, or raise max_poll_interval.",
     {-147: "_MAX_POLL_EXCEEDED"}),
    # -- this record, or this request ------------------------------------------------------------------
    (_RECORD, "Make the record smaller, or raise message.max.bytes here and max.message.bytes on the"
     " topic.",
     {10: "MSG_SIZE_TOO_LARGE", 18: "RECORD_LIST_TOO_LARGE", 4: "INVALID_MSG_SIZE"}),
    (_RECORD, "Dead-letter it: the value or key does not serialise, and will not the next time.",
     {-162: "_KEY_SERIALIZATION", -161: "_VALUE_SERIALIZATION", -160: "_KEY_DESERIALIZATION",
      -159: "_VALUE_DESERIALIZATION"}),
    (_RECORD, "Dead-letter it: the broker refuses this record (its timestamp, its key, or a rule of the"
     " topic).",
     {32: "INVALID_TIMESTAMP", 44: "POLICY_VIOLATION", 87: "INVALID_RECORD"}),
    (_RECORD, "Shorten the commit's metadata (offset.metadata.max.bytes on the broker).",
     {12: "OFFSET_METADATA_TOO_LARGE", 28: "INVALID_COMMIT_OFFSET_SIZE"}),
    (_RECORD, "Correct the request: what it asks for is invalid, exists already, or does not exist.",
     {-190: "_UNKNOWN_PARTITION", -168: "_NO_OFFSET", -156: "_NOENT", 36: "TOPIC_ALREADY_EXISTS",
      37: "INVALID_PARTITIONS", 38: "INVALID_REPLICATION_FACTOR", 39: "INVALID_REPLICA_ASSIGNMENT",
      55: "OPERATION_NOT_ATTEMPTED", 57: "LOG_DIR_NOT_FOUND", 69: "GROUP_ID_NOT_FOUND",
      84: "ELECTION_NOT_NEEDED", 85: "NO_REASSIGNMENT_IN_PROGRESS", 91: "RESOURCE_NOT_FOUND",
      92: "DUPLICATE_RESOURCE", 118: "TELEMETRY_TOO_LARGE"}),
    (_RECORD, "Stop the members of the group first, then ask again.",
     {68: "NON_EMPTY_GROUP", 86: "GROUP_SUBSCRIBED_TO_TOPIC"}),
    (_RECORD, "Look at the answer entry by entry: some parts of the request failed.",
     {-158: "_PARTIAL"}),
    # -- fatal: fail fast ------------------------------------------------------------------------------
    (_FATAL, "Create the topic (kafka-topics --create --topic NAME --partitions N, or relance topics"
     " create NAME) or correct its name.",
     {3: "UNKNOWN_TOPIC_OR_PART", -188: "_UNKNOWN_TOPIC", 17: "TOPIC_EXCEPTION"}),
    (_FATAL, "Correct the credentials (sasl.*, ssl.*): the broker does not accept who we say we are.",
     {-181: "_SSL", -169: "_AUTHENTICATION", 33: "UNSUPPORTED_SASL_MECHANISM", 34: "ILLEGAL_SASL_STATE",
      54: "SECURITY_DISABLED", 58: "SASL_AUTHENTICATION_FAILED", 61: "DELEGATION_TOKEN_AUTH_DISABLED",
      62: "DELEGATION_TOKEN_NOT_FOUND", 63: "DELEGATION_TOKEN_OWNER_MISMATCH",
      64: "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", 66: "DELEGATION_TOKEN_EXPIRED",
      67: "INVALID_PRINCIPAL_TYPE", 93: "UNACCEPTABLE_CREDENTIAL",
      97: "PRINCIPAL_DESERIALIZATION_FAILURE"}),
    (_FATAL, "Give this user the ACL it lacks (kafka-acls --add), or use another user.",
     {29: "TOPIC_AUTHORIZATION_FAILED", 30: "GROUP_AUTHORIZATION_FAILED",
      31: "CLUSTER_AUTHORIZATION_FAILED", 53: "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
      65: "DELEGATION_TOKEN_AUTHORIZATION_FAILED"}),
    (_FATAL, "Correct the configuration: the client or the broker refuses a setting.",
     {-186: "_INVALID_ARG", -154: "_INVALID_TYPE", -145: "_NOT_CONFIGURED", 21: "INVALID_REQUIRED_ACKS",
      24: "INVALID_GROUP_ID", 40: "INVALID_CONFIG", 50: "INVALID_TRANSACTION_TIMEOUT",
      73: "TOPIC_DELETION_DISABLED", 128: "INVALID_REGULAR_EXPRESSION"}),
    (_FATAL, "Bring session_timeout within the broker's group.min and group.max.session.timeout.ms.",
     {26: "INVALID_SESSION_TIMEOUT"}),
    (_FATAL, "Give all members of the group the same protocol and assignor.",
     {-171: "_UNKNOWN_PROTOCOL", 23: "INCONSISTENT_GROUP_PROTOCOL", 112: "UNSUPPORTED_ASSIGNOR"}),
    (_FATAL, "Stop one of the members, or raise group.max.size on the broker.",
     {81: "GROUP_MAX_SIZE_REACHED"}),
    (_FATAL, "Exit: a newer member has the same group.instance.id. Give each its own.",
     {-144: "_FENCED", 82: "FENCED_INSTANCE_ID"}),
    (_FATAL, "Throw this producer away and make a new one: another has its transactional.id, or its"
     " state is lost. Read the committed offsets again.",
     {-150: "_FATAL", -149: "_INCONSISTENT", -148: "_GAPLESS_GUARANTEE", 45: "OUT_OF_ORDER_SEQUENCE_NUMBER",
      47: "INVALID_PRODUCER_EPOCH", 48: "INVALID_TXN_STATE", 49: "INVALID_PRODUCER_ID_MAPPING",
      52: "TRANSACTION_COORDINATOR_FENCED", 59: "UNKNOWN_PRODUCER_ID", 90: "PRODUCER_FENCED"}),
    (_FATAL, "Use a broker (or a message format) that knows this feature, or switch the feature off.",
     {-170: "_NOT_IMPLEMENTED", -165: "_UNSUPPORTED_FEATURE", 35: "UNSUPPORTED_VERSION",
      43: "UNSUPPORTED_FOR_MESSAGE_FORMAT", 76: "UNSUPPORTED_COMPRESSION_TYPE",
      114: "MISMATCHED_ENDPOINT_TYPE", 115: "UNSUPPORTED_ENDPOINT_TYPE"}),
    (_FATAL, "Look at this machine: a disk, the memory or the file limit is used up.",
     {-194: "_CRIT_SYS_RESOURCE", -189: "_FS"}),
    (_FATAL, "Report it: the client was used in a way or in a state that it does not allow.",
     {-197: "_DESTROY", -179: "_UNKNOWN_GROUP", -176: "_EXISTING_SUBSCRIPTION", -173: "_CONFLICT",
      -172: "_STATE", -157: "_READ_ONLY", -143: "_APPLICATION", 42: "INVALID_REQUEST"}),
    (_FATAL, "Look at the broker's log: it failed in a way that it does not name, or that concerns"
     " brokers only.",
     {-1: "UNKNOWN", 11: "STALE_CTRL_EPOCH", 94: "INCONSISTENT_VOTER_SET", 95: "INVALID_UPDATE_VERSION",
      96: "FEATURE_UPDATE_FAILED", 119: "INVALID_REGISTRATION", 125: "INVALID_VOTER_KEY",
      126: "DUPLICATE_VOTER", 127: "VOTER_NOT_FOUND", 130: "STREAMS_INVALID_TOPOLOGY",
      131: "STREAMS_INVALID_TOPOLOGY_EPOCH", 132: "STREAMS_TOPOLOGY_FENCED"}),
    # -- not errors ------------------------------------------------------------------------------------
    (_EVENT, "Nothing: it is not an error.",
     {0: "NO_ERROR", -191: "_PARTITION_EOF", -141: "_NOOP", 46: "DUPLICATE_SEQUENCE_NUMBER"}),
)
# fmt: on

# Refused before the first send, or refused whole by the broker however often it is sent. Everything else
# may follow an earlier attempt whose answer was lost, so it stays unknown.
_NOT_WRITTEN: Final = frozenset(
    {-190, -188, -186, -184, -173, -172, -170, -166, -165, -162, -161, -157, -154, -152, -145, -138}
    | {4, 10, 17, 18, 21, 29, 31, 32, 35, 43, 44, 53, 76, 87}
)

KAFKA_ERRORS: Final[Mapping[int, KafkaErrorRow]] = MappingProxyType(
    {
        code: KafkaErrorRow(code, name, kind, action, code not in _NOT_WRITTEN)
        for kind, action, codes in _GROUPS
        for code, name in codes.items()
    }
)
"""Every known code, by number."""


def kafka_error(code: int) -> KafkaErrorRow:
    """The row of a code. One that the table doesn't know fails fast, and the row says that it is unknown."""
    row = KAFKA_ERRORS.get(code)
    if row is None:
        side = "librdkafka" if code < 0 else "the broker"
        action = f"Look it up: this version of relance does not know the code that {side} gave."
        row = KafkaErrorRow(code, f"CODE_{code}", KafkaErrorKind.FATAL, action, True)
    return row
