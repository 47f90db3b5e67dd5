"""`relance topics`: list, create, delete and describe topics, and make those that an application needs.

Promise: what is asked for is done or refused in one line; nothing is deleted without a yes.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

import typer

from relance.cli.application import load_app
from relance.cli.cluster import AsJson, Bootstrap, admin_for, print_json, print_table, settings_for
from relance.cli.options import config_of
from relance.errors import RelanceError, SettingsError, TopicMissingError
from relance.kafka.cluster import checked_topic_name
from relance.needs import differences
from relance.text import visible

__all__ = ["app"]

app = typer.Typer(
    help="List, create, ensure, delete and describe topics.", no_args_is_help=True, add_completion=False
)

_MOST = 2**31 - 1  # what fits into the request; the broker has a limit of its own

Name = Annotated[str, typer.Argument(metavar="TOPIC", show_default=False)]
Names = Annotated[list[str], typer.Argument(metavar="TOPIC...", show_default=False)]
Replication = Annotated[
    int, typer.Option("--replication-factor", min=-1, max=100, help="Copies of each; -1: as the broker says.")
]


@app.command("list")
def list_topics(
    bootstrap: Bootstrap = None,
    internal: Annotated[bool, typer.Option("--internal", help="Kafka's own topics too.")] = False,
    as_json: AsJson = False,
) -> None:
    """All topics, with their partitions and records."""
    found = [each for each in admin_for(settings_for(bootstrap)).topics() if internal or not each.internal]
    if as_json:
        print_json(
            [
                {"name": t.name, "partitions": t.partitions, "records": t.records, "internal": t.internal}
                for t in found
            ]
        )
    elif found:
        columns = [("Topic", False), ("Partitions", True), ("Records", True)]
        print_table(columns, [(t.name, t.partitions, t.records) for t in found])
    else:
        typer.echo("no topics yet: create one with  relance topics create orders --partitions 6")


@app.command()
def create(
    topics: Names,
    bootstrap: Bootstrap = None,
    partitions: Annotated[int, typer.Option("--partitions", "-p", min=1, max=_MOST, help="How many.")] = 1,
    replication: Replication = -1,
    config: Annotated[
        list[str] | None, typer.Option("--config", metavar="NAME=VALUE", help="A setting of the topics.")
    ] = None,
    if_not_exists: Annotated[bool, typer.Option(help="Not an error if one is there already.")] = False,
) -> None:
    """Create topics, all alike."""
    configs = config_of(config)
    names = [checked_topic_name(topic) for topic in dict.fromkeys(topics)]
    admin = admin_for(settings_for(bootstrap))
    there = []
    for topic in names:
        if admin.ensure_topic(topic, partitions, configs, replication_factor=replication):
            typer.echo(f"created {topic} with {_partitions(partitions)}")
        elif if_not_exists:
            typer.echo(f"{topic} exists already")
        else:
            there.append(repr(topic))
    if len(there) == 1:
        raise RelanceError(f"topic {there[0]} exists already; it was left as it is")
    if there:
        raise RelanceError(f"topics {', '.join(there)} exist already; they were left as they are")


@app.command()
def ensure(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="For example shop.orders:app.")],
    bootstrap: Bootstrap = None,
    partitions: Annotated[
        int | None,
        typer.Option(
            "--partitions", "-p", min=1, max=_MOST, help="Of source topics that are made.  [default: 1]"
        ),
    ] = None,
    replication: Replication = -1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be made, and make nothing.")
    ] = False,
) -> None:
    """Create the topics that an application needs and that are missing.

    Retry and dead-letter topics get as many partitions as their source; tables get one, and are compacted.
    A topic that exists is left as it is; where it differs from that, a line says so.
    """
    application = load_app(target)
    settings = application.settings
    if bootstrap is not None:
        settings = dataclasses.replace(settings, bootstrap_servers=bootstrap, servers_from="--bootstrap")
    admin = admin_for(settings)
    known = {topic.name: topic.partitions for topic in admin.topics()}
    there = set(known)
    for topic in application.needed_topics():
        should = topic.partitions(partitions or 1, known)
        if topic.name in there:
            differs = differences(
                topic,
                known[topic.name],
                # Only --partitions says how many a source should have.
                should if topic.part != "source" or partitions else known[topic.name],
                admin.configs(topic.name, defaults=True),
            )
            typer.echo(f"{topic.name} ({topic.part}) is there{''.join(f'; {each}' for each in differs)}")
            continue
        known[topic.name] = should
        made = f"{topic.name} ({topic.part}) with {_partitions(should)}"
        if dry_run:
            typer.echo(f"would create {made}")
        elif admin.ensure_topic(topic.name, should, topic.configs, replication_factor=replication):
            typer.echo(f"created {made}")
        else:
            typer.echo(f"{topic.name} ({topic.part}) is there: somebody has just made it")


@app.command()
def delete(
    topics: Names,
    bootstrap: Bootstrap = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Delete topics with all their records."""
    settings = settings_for(bootstrap)
    names = ", ".join(map(visible, topics))
    if not yes:
        if not sys.stdin.isatty():
            raise SettingsError("--yes", f"is needed to delete {names} where nobody can be asked")
        typer.confirm(f"Delete {names} on {settings.bootstrap_servers}, with all records?", abort=True)
    admin = admin_for(settings)
    missing = []
    for topic in topics:
        try:
            admin.delete_topic(topic)
        except TopicMissingError:
            missing.append(topic)
        else:
            typer.echo(f"deleted {topic}")
    if missing:
        raise TopicMissingError(*missing, bootstrap_servers=settings.bootstrap_servers)


@app.command()
def describe(topic: Name, bootstrap: Bootstrap = None, as_json: AsJson = False) -> None:
    """A topic's partitions with their offsets, and its own settings."""
    admin = admin_for(settings_for(bootstrap))
    partitions = admin.partitions(topic)
    configs = admin.configs(topic)
    topic_id = admin.topic_id(topic)
    records = sum(each.records for each in partitions)
    if as_json:
        print_json(
            {
                "name": topic,
                "id": topic_id,
                "records": records,
                "configs": configs,
                "partitions": [
                    {
                        "partition": p.partition,
                        "leader": p.leader,
                        "replicas": p.replicas,
                        "inSync": p.in_sync,
                        "beginOffset": p.begin,
                        "endOffset": p.end,
                    }
                    for p in partitions
                ],
            }
        )
        return
    typer.echo(f"{topic}   id {topic_id}   {records} records")
    for name, value in configs.items():
        typer.echo(f"  {name}={visible(value or '')}")
    columns = [("Partition", True), ("First offset", True), ("Next offset", True), ("Records", True)]
    columns += [("Leader", True), ("In sync", True)]
    print_table(
        columns,
        [
            (
                p.partition,
                p.begin,
                p.end,
                p.records,
                "none" if p.leader is None else p.leader,
                f"{p.in_sync}/{p.replicas}",
            )
            for p in partitions
        ],
    )


def _partitions(count: int) -> str:
    return f"{count} partition{'s' if count != 1 else ''}"
