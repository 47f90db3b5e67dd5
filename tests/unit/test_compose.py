"""compose.yaml and the Dockerfile must say the same as the scripts; read as data, without an engine."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from orders.settings import Settings as OrdersSettings
from relance.broker import KAFKA_VERSION
from relance.broker import properties as local_broker

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from stack import settings as stack_settings  # noqa: E402

STACK = stack_settings.from_environment({})
OURS = ("order-api", "order-consumer", "console")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    return compose["services"]


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def host_ports(service: Mapping[str, Any]) -> set[int]:
    found: set[int] = set()
    for published in service.get("ports", []):
        address, host, _container = published.split(":")
        assert address == "127.0.0.1", f"{published} is open to other machines"
        first, _, last = host.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def test_the_project_is_m04(compose: dict[str, Any]) -> None:
    assert compose["name"] == "m04"


def test_no_container_has_a_fixed_name_so_that_services_scale(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if "container_name" in service] == []


@pytest.mark.parametrize("formatted", [True, False])
def test_each_stack_is_a_cluster_of_its_own_and_stays_the_same(
    services: dict[str, Any], tmp_path: Path, formatted: bool
) -> None:
    assert "CLUSTER_ID" not in services["kafka"]["environment"]
    shell, option, script = services["kafka"]["command"]
    for name, text in {"kafka-storage.sh": "echo a-new-one", "run": 'echo "$CLUSTER_ID"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    if formatted:
        (tmp_path / "meta.properties").write_text("#\nversion=1\ncluster.id=the-old-one\nnode.id=1\n")
    script = script.replace("$$", "$")
    for folder in ("/var/lib/kafka/data", "/opt/kafka/bin", "/etc/kafka/docker"):
        assert folder in script
        script = script.replace(folder, str(tmp_path))
    ran = subprocess.run([shell, option, script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ("the-old-one" if formatted else "a-new-one")


def test_every_service_that_stays_has_a_health_check(services: dict[str, Any]) -> None:
    staying = {name: service for name, service in services.items() if service["restart"] != "no"}
    assert set(staying) == {"kafka", *OURS}
    for name, service in staying.items():
        check = service["healthcheck"]
        assert check["test"][0] == "CMD", name
        assert {"interval", "timeout", "retries", "start_period"} <= check.keys()


def test_the_ports_are_those_of_the_scripts(services: dict[str, Any]) -> None:
    assert host_ports(services["order-api"]) == {STACK.api_port}
    assert host_ports(services["console"]) == {STACK.console_port}
    assert host_ports(services["kafka"]) == {9092}
    assert min(host_ports(services["order-consumer"])) == STACK.first_consumer_port


def test_the_second_consumer_has_ports_for_more_than_one(services: dict[str, Any]) -> None:
    free = host_ports(services["order-consumer"]) - stack_settings.SIBLING_PORTS
    assert len(free) >= 3
    assert not free & host_ports(services["order-api"])


def test_the_services_start_when_the_topics_are_there(services: dict[str, Any]) -> None:
    for name in OURS:
        assert services[name]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}
    assert services["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}


def test_the_topics_are_those_of_the_scripts(services: dict[str, Any]) -> None:
    (script,) = services["topics"]["command"]
    made = {
        (name, int(partitions), tuple(re.findall(r"--config (\S+)=(\S+)", rest)))
        for name, partitions, rest in re.findall(r"--topic (\S+) --partitions (\d+)(.*)", script)
    }
    assert made == {(topic.name, topic.partitions, topic.config) for topic in STACK.topics}
    assert "--if-not-exists" in script


def test_the_orders_services_accept_their_environment(services: dict[str, Any]) -> None:
    for name, role in (("order-api", "api"), ("order-consumer", "consumer")):
        environment = {
            key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value)
            for key, value in services[name]["environment"].items()
        }
        settings = OrdersSettings.load({**environment, "ORDERS_ROLE": services[name]["command"][-1]})
        assert settings.role == role
        assert settings.group_id == STACK.group
        assert (settings.topic, settings.dlt_topic) == (STACK.topic, STACK.dlt_topic)
        assert settings.retry_topic == STACK.retry_topic
        container_port = services[name]["ports"][0].rpartition(":")[2]
        assert settings.port == int(container_port)


def test_all_that_tunes_the_retries_is_passed_on_with_its_default(services: dict[str, Any]) -> None:
    default = OrdersSettings.load({})
    for name in ("order-api", "order-consumer"):
        environment = services[name]["environment"]
        for variable in stack_settings.TUNING:
            text = environment[variable]
            if variable != "KAFKA_AUTO_OFFSET_RESET":
                found = re.fullmatch(rf"\$\{{{variable}:-(.*)\}}", text)
                assert found is not None, variable
                text = found[1]
            assert OrdersSettings.load({variable: text}) == default, variable


def test_replicas_of_the_consumer_do_not_share_a_name(services: dict[str, Any]) -> None:
    assert "INSTANCE_NAME" not in services["order-consumer"]["environment"]


def test_kafka_is_the_version_of_the_local_broker_with_the_same_teaching_settings(
    services: dict[str, Any],
) -> None:
    assert services["kafka"]["image"] == services["topics"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    environment = services["kafka"]["environment"]
    node = local_broker.Node(1, 9092, 19092, 29093)
    local = local_broker.server_properties(node, [node], Path("/data"), {}, with_ipv6=False)
    for key, value in local.items():
        variable = "KAFKA_" + key.upper().replace(".", "_")
        if key.startswith("group.consumer") or key in (
            "auto.create.topics.enable",
            "group.initial.rebalance.delay.ms",
            "group.min.session.timeout.ms",
            "offsets.topic.replication.factor",
            "transaction.state.log.replication.factor",
            "share.coordinator.state.topic.replication.factor",
        ):
            assert environment[variable] == value, variable


def test_kafka_answers_to_containers_and_to_this_machine(services: dict[str, Any]) -> None:
    environment = services["kafka"]["environment"]
    advertised = dict(url.split("://") for url in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    assert advertised["CLIENT"] == "localhost:9092"
    for name in OURS:
        assert services[name]["environment"]["KAFKA_BOOTSTRAP_SERVERS"] == advertised["INTERNAL"]


def test_the_image_runs_as_a_user_who_is_not_root(dockerfile: str) -> None:
    last_stage = dockerfile.split("\nFROM ")[-1]
    assert re.search(r"^USER (?!root|0)\w+$", last_stage, re.MULTILINE)
    assert "HEALTHCHECK" in last_stage


def test_the_image_installs_what_the_lock_says_with_its_hashes(dockerfile: str) -> None:
    assert dockerfile.count("\nFROM ") == 2
    assert "--require-hashes requirements.lock" in dockerfile
    setup = (ROOT / "scripts" / "setup.sh").read_text()
    pinned = re.search(r"^uv_version=(\S+)", setup, re.MULTILINE)
    assert pinned is not None
    assert f"uv=={pinned[1]}" in dockerfile


def test_everything_that_the_image_copies_is_let_through(dockerfile: str) -> None:
    let_through = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE)
        for name in line.split()[:-1]
    }
    assert copied <= let_through
