"""The local broker's settings; promises a cluster that starts fast and listens on this machine only.

The group settings are teaching settings: a heartbeat every half a second and no initial rebalance delay
make a rebalance visible in seconds. A production cluster would say otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from relance.broker.layout import Node
from relance.errors import SettingsError

# What the cluster's shape decides; to change it from outside would only break it.
_OURS = frozenset(
    {
        "advertised.listeners",
        "controller.listener.names",
        "controller.quorum.bootstrap.servers",
        "controller.quorum.voters",
        "inter.broker.listener.name",
        "listeners",
        "node.id",
        "process.roles",
    }
)

_TEACHING = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.session.timeout.ms": "10000",
    "group.min.session.timeout.ms": "1000",
    "group.share.min.heartbeat.interval.ms": "500",
    "group.share.heartbeat.interval.ms": "500",
}

# A node that was killed is missed after 4 s instead of 9, by the others and by its own next start, which the
# controller refuses as a duplicate until then (measured: 11 s from a kill -9 to serving again with 9 s).
_FAILOVER = {"broker.heartbeat.interval.ms": "500", "broker.session.timeout.ms": "4000"}

# One disk and few records: little to recover at a start, and a small compacted topic does get compacted
# (the cleaner looks every second, and would otherwise take only logs of which half is dirty).
_SMALL = {
    "num.partitions": "1",
    "num.recovery.threads.per.data.dir": "1",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.num.partitions": "8",
    "share.coordinator.state.topic.num.partitions": "8",
    "log.cleaner.backoff.ms": "1000",
    "log.cleaner.min.cleanable.ratio": "0.1",
    "log.cleaner.dedupe.buffer.size": "33554432",
    "log.segment.bytes": "67108864",
    "log.index.size.max.bytes": "1048576",
    "offsets.topic.segment.bytes": "16777216",
}


def sasl_plain(users: Mapping[str, str], *, acls: bool = False) -> dict[str, str]:
    """Settings that make clients log in by SASL/PLAIN with one of `users` (name to password).

    With `acls`, nothing is allowed to them but what an ACL says; the user `admin` may do all. For tests.
    """
    jaas = "org.apache.kafka.common.security.plain.PlainLoginModule required " + " ".join(
        f'user_{name}="{password}"' for name, password in users.items()
    )
    plain = "INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"
    settings = {
        "listener.security.protocol.map": f"CLIENT:SASL_PLAINTEXT,CLIENT6:SASL_PLAINTEXT,{plain}",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.client.plain.sasl.jaas.config": f"{jaas};",
        "listener.name.client6.plain.sasl.jaas.config": f"{jaas};",
    }
    if acls:
        # The brokers talk to each other without a name, on listeners that clients are not told of.
        settings["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        settings["super.users"] = "User:ANONYMOUS;User:admin"
    return settings


def check_config(config: Mapping[str, str], nodes: int) -> None:
    """Refuse the settings that the cluster's shape decides. Raises SettingsError, naming the key."""
    for key in config:
        if key in _OURS or (key == "log.dirs" and nodes > 1):
            raise SettingsError(
                key,
                "is decided by relance broker, so --config may not set it (see --nodes, --bootstrap, --dir)",
            )


def server_properties(
    node: Node, nodes: Sequence[Node], data: Path, config: Mapping[str, str], *, with_ipv6: bool
) -> dict[str, str]:
    """The whole server.properties of one node; `config`, the user's own settings, wins.

    Clients use the listeners CLIENT and, where there is an IPv6 loopback, CLIENT6: both are `localhost`,
    so that a client that resolves the name to ::1 first finds the broker there too. The brokers talk to
    each other on INTERNAL, which stays plain when a test puts SASL on CLIENT by
    `listener.security.protocol.map`.
    """
    listeners = {"CLIENT": f"127.0.0.1:{node.port}"}
    if with_ipv6:
        listeners["CLIENT6"] = f"[::1]:{node.port}"
    listeners["INTERNAL"] = f"127.0.0.1:{node.internal_port}"
    told = f"localhost:{node.told_port or node.port}"
    advertised = dict.fromkeys(listeners, told) | {"INTERNAL": listeners["INTERNAL"]}
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.id),
        "listeners": _urls(listeners | {"CONTROLLER": f"127.0.0.1:{node.controller_port}"}),
        "advertised.listeners": _urls(advertised),
        "listener.security.protocol.map": ",".join(
            f"{name}:PLAINTEXT" for name in (*listeners, "CONTROLLER")
        ),
        "inter.broker.listener.name": "INTERNAL",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": ",".join(f"{n.id}@127.0.0.1:{n.controller_port}" for n in nodes),
        "log.dirs": str(data),
        **replication(len(nodes)),
        **_FAILOVER,
        **_TEACHING,
        **_SMALL,
        **config,
    }


def container_properties(port: int, config: Mapping[str, str]) -> dict[str, str]:
    """The settings of the one node in a container. It listens on all of the container's addresses.

    Which of this machine's addresses lead there is Docker's to say (`--publish`).
    """
    inside = Node(1, port, 19092, 19093)
    settings = server_properties(inside, [inside], Path("/tmp/kafka-logs"), config, with_ipv6=False)
    return settings | {"listeners": settings["listeners"].replace("CLIENT://127.0.0.1", "CLIENT://0.0.0.0")}


def replication(nodes: int) -> dict[str, str]:
    """Copies of the internal topics and of new ones: as many as there are nodes, three at most."""
    copies = str(min(nodes, 3))
    in_sync = "2" if nodes >= 3 else "1"
    return {
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
    }


def as_file(properties: Mapping[str, str]) -> str:
    """Java's properties format. Newlines and backslashes are escaped, so that a value stays one value."""
    return "".join(f"{key}={escaped(value)}\n" for key, value in properties.items())


def escaped(value: str) -> str:
    """A value as Java's properties format writes it."""
    plain = value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return "".join(c if " " <= c <= "~" or c == "\t" else _unicode(c) for c in plain)


def _unicode(char: str) -> str:
    units = char.encode("utf-16-be").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def _urls(listeners: Mapping[str, str]) -> str:
    return ",".join(f"{name}://{address}" for name, address in listeners.items())


# Kafka's own loggers at info are the log a person reads when something is off; the rest stays short.
LOG4J = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{yyyy-MM-dd'T'HH:mm:ss.SSS'Z'}{UTC} %-5p [%c{1}] %m%n
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = warn
logger.kafkaconfig.name = kafka.server.KafkaConfig
logger.kafkaconfig.level = warn
"""
