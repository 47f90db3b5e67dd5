"""`relance topics`: list, create, delete and describe topics.

Promise: what is asked for is done or refused in one line; nothing is deleted without a yes.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from relance.cli.cluster import AsJson, Bootstrap, admin_for, print_json, print_table, settings_for
from relance.cli.options import config_of
from relance.errors import RelanceError, SettingsError
from relance.text import visible

__all__ = ["app"]

app = typer.Typer(
    help="List, create, delete and describe topics.", no_args_is_help=True, add_completion=False
)

_MOST = 2**31 - 1  # what fits into the request; the broker has a limit of its own

Name = Annotated[str, typer.Argument(metavar="TOPIC", show_default=False)]


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
    topic: Name,
    bootstrap: Bootstrap = None,
    partitions: Annotated[int, typer.Option("--partitions", "-p", min=1, max=_MOST, help="How many.")] = 1,
    replication: Annotated[
        int,
        typer.Option("--replication-factor", min=-1, max=100, help="Copies of each; -1: as the broker says."),
    ] = -1,
    config: Annotated[
        list[str] | None, typer.Option("--config", metavar="NAME=VALUE", help="A setting of the topic.")
    ] = None,
    if_not_exists: Annotated[bool, typer.Option(help="Not an error if it is there already.")] = False,
) -> None:
    """Create a topic."""
    configs = config_of(config)
    admin = admin_for(settings_for(bootstrap))
    if admin.ensure_topic(topic, partitions, configs, replication_factor=replication):
        typer.echo(f"created {topic} with {partitions} partition{'s' if partitions != 1 else ''}")
    elif if_not_exists:
        typer.echo(f"{topic} exists already")
    else:
        raise RelanceError(f"topic {topic!r} exists already; it was left as it is")


@app.command()
def delete(
    topics: Annotated[list[str], typer.Argument(metavar="TOPIC...", show_default=False)],
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
    for topic in topics:
        admin.delete_topic(topic)
        typer.echo(f"deleted {topic}")


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
