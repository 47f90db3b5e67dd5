"""Brings the stack up: broker, topics, services, and waits until the group shares out its partitions.

Promise: run again, it keeps what is healthy and restarts what is dead or stale; interrupted or failed
half-way, it stops what this run started and says what it leaves alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from relance import ports
from relance.broker import LocalBroker, files
from relance.broker.processes import Identity
from stack import services, supervisor, web
from stack.cluster import Cluster, Group
from stack.services import Service
from stack.settings import Settings, StackError
from stack.supervisor import Running

HEALTHY_WITHIN = 40.0  # seconds; the cold start of four Python processes on a busy 2-core machine
SHARED_OUT_WITHIN = 30.0  # seconds; a session time-out (10 s) of a killed member may have to pass first

Say = Callable[[str], None]


def quiet(_line: str) -> None:
    """For those who bring their own progress."""


@dataclass
class Launch:
    """One run of `up`. It remembers what ran before, so that what it starts can be taken back."""

    settings: Settings
    say: Say = print
    broker_started: bool = False
    before: frozenset[Identity] = field(init=False)

    def __post_init__(self) -> None:
        self.before = frozenset(running.who for running in supervisor.find_all(self.settings))

    def run(self, consumers: int | None = None) -> list[Service]:
        """All of it, with `consumers` second consumers (None: as many as before, at first one)."""
        settings = self.settings
        count = consumers if consumers is not None else wanted_consumers(settings)
        wanted = services.all_services(settings, count)
        for service in wanted:
            if supervisor.find(settings, service.name) is None:
                self.check_port(service)  # before anything is started for nothing
        self.start_broker()
        created = Cluster(settings).create(settings.topics)
        names = ", ".join(f"{topic.name} ({topic.partitions})" for topic in settings.topics)
        self.say(f"topics    {names}{'' if not created else ', made: ' + ', '.join(created)}")
        note_consumers(settings, count)
        self.start_services(wanted)
        self.wait_shared_out([service for service in wanted if service.in_group])
        return wanted

    def scale(self, consumers: int) -> None:
        """Only the second consumers: start or stop as many as it takes, and wait for the group to settle."""
        note_consumers(self.settings, consumers)
        wanted = [services.order_consumer(self.settings, number) for number in range(1, consumers + 1)]
        self.start_services(wanted)
        self.wait_shared_out([services.order_api(self.settings), *wanted])

    # -- broker ---------------------------------------------------------------------------------------

    def start_broker(self) -> None:
        settings = self.settings
        broker = local_broker(settings, lambda line: self.say(f"broker    {line}"))
        if broker is None:
            Cluster(settings).topics()  # raises if nobody answers
            self.say(f"broker    {settings.bootstrap}, not started from here")
            return
        before = broker.status()
        self.broker_started = not before.running
        since = time.monotonic()
        status = broker.start()
        if status.foreign:
            self.broker_started = False
            port = int(settings.bootstrap.rpartition(":")[2])
            self.say(f"broker    {settings.bootstrap} answers already, and was not started from here:")
            self.say(f"broker    it is {ports.holder_of(port)}; its topics and records are used")
            self.say("broker    to start one of this folder beside it, name a free port:")
            self.say("broker    RELANCE_BOOTSTRAP_SERVERS=localhost:PORT ./scripts/up.sh")
        elif before.running:
            self.say(f"broker    {settings.bootstrap} runs")
        else:
            self.say(f"broker    {settings.bootstrap} started in {time.monotonic() - since:.1f} s")

    # -- services -------------------------------------------------------------------------------------

    def start_services(self, wanted: list[Service]) -> None:
        """Stop the surplus, start what is missing, restart what is stale or sick, wait for health."""
        settings = self.settings
        self._stop_surplus(len([s for s in wanted if services.consumer_number(s.name)]))
        pending: list[tuple[Service, Running]] = []
        for service in wanted:
            running = supervisor.find(settings, service.name)
            if running is not None:
                why = self._why_restart(service, running)
                if why is None:
                    self.say(f"{service.title} keeps running on {service.port}")
                    continue
                self.say(f"{service.title} restarts: {why}")
                supervisor.stop(settings, [running])
            pending.append((service, self.start(service)))
        self._wait_healthy(pending)

    def start(self, service: Service) -> Running:
        """Start one service, after a look at its port."""
        self.check_port(service)
        return supervisor.start(self.settings, service)

    def check_port(self, service: Service) -> None:
        """Raises StackError, naming the program that holds the service's port."""
        if not ports.port_is_free(service.port):
            raise StackError(
                f"port {service.port} for the {service.title} is in use by "
                f"{ports.holder_of(service.port)}; stop that program first"
            )

    def _why_restart(self, service: Service, running: Running) -> str | None:
        if running.recipe != supervisor.recipe(service):
            return "its code or settings changed"
        deadline = time.monotonic() + 5.0  # a hiccup is no reason: healthy within a few seconds is healthy
        while not (health := web.get(f"{service.url}/health", timeout=2.0)).ok:
            if time.monotonic() > deadline or not running.alive:
                return f"it is not healthy ({health})"
            time.sleep(0.2)
        return None

    def _stop_surplus(self, consumers: int) -> None:
        surplus = supervisor.surplus(self.settings, consumers)
        since = time.monotonic()
        killed = supervisor.stop(self.settings, surplus)
        for running in surplus:
            how = "killed: it didn't stop in time" if running.name in killed else "stopped"
            self.say(f"{running.name} on {running.port} {how} ({time.monotonic() - since:.1f} s)")

    def _wait_healthy(self, pending: list[tuple[Service, Running]]) -> None:
        since = time.monotonic()
        last: web.Answer | None = None
        while pending:
            for service, running in list(pending):
                last = web.get(f"{service.url}/health", timeout=2.0)
                if not running.alive:
                    tail = supervisor.last_lines(self.settings, service.name)
                    raise StackError(f"the {service.title} ended while it started\n{tail}")
                if last.ok:
                    pending.remove((service, running))
                    self.say(f"{service.title} healthy on {service.port} ({time.monotonic() - since:.1f} s)")
                elif time.monotonic() - since > HEALTHY_WITHIN:
                    tail = supervisor.last_lines(self.settings, service.name)
                    late = f"the {service.title} isn't healthy after {HEALTHY_WITHIN:.0f} s: {last}"
                    raise StackError(f"{late}\n{tail}")
            time.sleep(0.1)

    # -- group ----------------------------------------------------------------------------------------

    def wait_shared_out(self, members: list[Service]) -> Group:
        """Until the group has its members and each partition one owner, evenly, who knows it.

        The broker alone isn't enough: after a topic was made anew it goes on telling the old assignment
        until the members have noticed.
        """
        settings, cluster = self.settings, Cluster(self.settings)
        partitions = settings.topics[0].partitions
        since = time.monotonic()
        while True:
            group = cluster.group(settings.group, settings.topic)
            if shared_out(group, len(members), partitions) and len(owners(members)) == partitions:
                shares = "/".join(map(str, group.shares))
                count = f"{len(members)} member{'s' if len(members) != 1 else ''}"
                took = time.monotonic() - since
                self.say(f"group     {settings.group}: {count}, partitions {shares} ({took:.1f} s)")
                return group
            if time.monotonic() - since > SHARED_OUT_WITHIN:
                who = ", ".join(f"{m.client_id}: {list(m.partitions)}" for m in group.members) or "nobody"
                raise StackError(
                    f"group {settings.group} has not shared out the partitions of {settings.topic} among "
                    f"{len(members)} members after {SHARED_OUT_WITHIN:.0f} s; it is {group.state} with {who}"
                )
            time.sleep(0.15)

    # -- back -----------------------------------------------------------------------------------------

    def undo(self) -> None:
        """Stop what this run started, in reverse order; what ran before keeps running, and is named."""
        # Asked of the pid files, not of a list of ours: an interrupt may come between a start and its noting.
        ours = [one for one in supervisor.find_all(self.settings) if one.who not in self.before]
        if ours:
            self.say(f"stopping what this run started: {', '.join(one.name for one in ours)}")
            supervisor.stop(self.settings, ours)
        broker = local_broker(self.settings, self.say)
        if self.broker_started and broker is not None:
            self.say("stopping the broker, which this run started")
            broker.stop()
        left = [running.name for running in supervisor.find_all(self.settings)]
        if broker is not None and not self.broker_started and any(node.pid for node in broker.status().nodes):
            left.append(services.BROKER)
        self.say(
            f"left running, as before: {', '.join(left)}" if left else "nothing of this stack is running"
        )


def shared_out(group: Group, members: int, partitions: int) -> bool:
    """Whether `members` (or more: someone else's may have joined) own all partitions, as evenly as can be."""
    if group.state != "STABLE" or len(group.members) < members:
        return False
    owned = sorted(p for member in group.members for p in member.partitions)
    return owned == list(range(partitions)) and max(group.shares) - min(group.shares) <= 1


def owners(members: list[Service]) -> dict[int, Service]:
    """Which member says that it owns which partition."""
    told = [(member, web.get(f"{member.url}/api/v1/partitions").json.get("partitions")) for member in members]
    return {partition: member for member, partitions in told for partition in partitions or ()}


def local_broker(settings: Settings, say: Say = quiet) -> LocalBroker | None:
    """The local broker of this stack; None where the bootstrap address is on another machine."""
    host, _, port = settings.bootstrap.rpartition(":")
    if host not in ("localhost", "127.0.0.1", "[::1]") or not port.isdigit():
        return None
    return LocalBroker(settings.run_dir, port=int(port), say=say)


def wanted_consumers(settings: Settings) -> int:
    """How many second consumers were asked for last; one, if nobody said."""
    path = settings.run_dir / "consumers"
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return 1
    except ValueError:
        raise StackError(f"{path} is damaged; delete it, then run this again") from None


def note_consumers(settings: Settings, count: int) -> None:
    files.write_whole(settings.run_dir / "consumers", f"{count}\n")


def table(settings: Settings, wanted: list[Service]) -> str:
    """The addresses, for a reader who wants to start."""
    rows = [(service.title, service.url, _hint(service)) for service in wanted]
    rows.append(("Kafka", settings.bootstrap, "./scripts/kafka.sh kafka-topics --list"))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(
        f"  {name:<{widths[0]}}  {url:<{widths[1]}}  {hint}".rstrip() for name, url, hint in rows
    )


def _hint(service: Service) -> str:
    if service.name == services.API:
        return f"try {service.url}/docs"
    return (
        "topics, records, groups" if service.name == services.CONSOLE else f"{service.url}/api/v1/partitions"
    )
