"""The items that come before the labs: the topics, the services, the group.

Promise: if one of these fails, no lab is tried: it could only repeat the same cause in other words.
"""

from __future__ import annotations

from functools import partial

from relance import ports
from stack import services, supervisor, web
from stack.cluster import Group
from stack.services import Service
from stack.up import shared_out
from stack.validate.lab import CheckFailedError, Lab


def topics(lab: Lab) -> str:
    """`orders` with 6 partitions, its DLT and retry topic, and no other name that the course's grep shows."""
    there = lab.cluster.topics()
    for topic in lab.settings.topics:
        if topic.name not in there:
            raise CheckFailedError(f"topic {topic.name} does not exist; ./scripts/up.sh creates it")
    orders = lab.settings.topics[0]
    if there[orders.name] != orders.partitions:
        raise CheckFailedError(
            f"topic {orders.name} has {there[orders.name]} partitions, not {orders.partitions}"
        )
    matching = sorted(name for name in there if orders.name in name)
    if len(matching) != 3:
        raise CheckFailedError(f"{len(matching)} topics match {orders.name!r}, not 3: {', '.join(matching)}")
    return ", ".join(f"{name} ({there[name]})" for name in matching)


def answering(lab: Lab) -> str:
    """Everyone answers, and says UP."""
    everyone = [*lab.members, services.console(lab.settings)]
    for service in everyone:
        if not lab.wait(partial(_healthy, service), 8.0):
            raise CheckFailedError(_why_silent(lab, service))
        if supervisor.find(lab.settings, service.name) is None:
            holder = ports.holder_of(service.port)
            raise CheckFailedError(
                f"another program answers for the {lab.spoken(service)}: {holder}; it wasn't started by the "
                f"up.sh beside this validate.sh, so its logs aren't here"
            )
    return ", ".join(f"{lab.spoken(service)} UP" for service in everyone)


def _healthy(service: Service) -> bool:
    health = web.get(f"{service.url}/health", timeout=3.0)
    return health.ok and health.json.get("status") == "UP"


def _why_silent(lab: Lab, service: Service) -> str:
    health = web.get(f"{service.url}/health", timeout=3.0)
    if health.status:
        return f"the {lab.spoken(service)} is not healthy: {health}"
    why = "does not answer" if "timed out" in health.text else "does not run: nothing answers on its port"
    if not service.in_group:
        return f"the {lab.spoken(service)} {why}; ./scripts/up.sh starts it again"
    return (
        f"{lab.spoken(service)} is not in the group {lab.settings.group}: it {why}; "
        f"./scripts/up.sh starts it again, ./scripts/logs.sh {service.name} shows why it ended"
    )


def group(lab: Lab) -> str:
    """The group has all its members, and its partitions are shared out evenly."""
    settings, members = lab.settings, lab.members
    partitions = settings.topics[0].partitions

    def settled() -> Group | None:
        found = lab.cluster.group(settings.group, settings.topic)
        return found if shared_out(found, len(members), partitions) else None

    found = settled()
    if found is None:
        lab.say("  … waiting for the group to settle")
        found = lab.wait(settled, 15.0)
    if found is None:
        raise CheckFailedError(_why_unsettled(lab))

    def all_owned() -> bool:
        lab.learn_owners()
        return len(lab.owners) == partitions

    if not lab.wait(all_owned, 15.0):
        raise CheckFailedError(
            f"the members say that they own partitions {sorted(lab.owners)} of {settings.topic}, "
            f"the broker says that all {partitions} are assigned"
        )
    return f"{settings.group} has {len(found.members)} members, {'/'.join(map(str, found.shares))} partitions"


def _why_unsettled(lab: Lab) -> str:
    settings, members = lab.settings, lab.members
    found = lab.cluster.group(settings.group, settings.topic)
    have = f"the group {settings.group} has {len(found.members)} of {len(members)} members"
    if len(found.members) < len(members):
        assigned = {member.partitions for member in found.members}
        for service in reversed(members):
            claimed = web.get(f"{service.url}/api/v1/partitions").json.get("partitions", [])
            if tuple(sorted(claimed)) not in assigned:
                health = lab.health_of(service)
                outside = f"{lab.spoken(service)} is not in the group {settings.group}"
                return f"{outside}: it answers, but {have}{health}"
        expected = ", ".join(lab.spoken(member) for member in members)
        others = lab.cluster.other_groups_of(settings.topic, settings.group)
        hint = f"; group {', '.join(others)} reads {settings.topic}, too (KAFKA_GROUP_ID?)" if others else ""
        return f"a member is missing: {have}, expected {expected}{hint}"
    who = ", ".join(f"{member.client_id}: {list(member.partitions)}" for member in found.members)
    return f"the group {settings.group} does not share out its partitions evenly: {found.state}, {who}"
