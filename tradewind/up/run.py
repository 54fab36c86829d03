"""One `tradewind up`, from the file to the last process ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from router_sync.fleet import BadFleet
from router_sync.keys import load_or_make, public_path
from streams.contract.errors import Denied, Missing, Retry, Stop
from streams.contract.records import Fleet
from streams.runtime import clock
from streams.settings import Settings
from tradewind import running
from tradewind.config import actuators
from tradewind.config.whole import Whole
from tradewind.up import credentials
from tradewind.up.children import Children, referenced, together
from tradewind.up.folder import taken
from tradewind.up.kafka import ensure_topics, publish_next
from tradewind.up.moves import tell_moves
from tradewind.up.ports import gateway_ports
from tradewind.up.watch import Watched, changes, need_restart

if TYPE_CHECKING:
    from tradewind.embedded import EmbeddedKafka, Runtime
    from tradewind.processes import Kept, News

SIGNING_KEY: Final = "router.key"
_AGAIN_S: Final = 2.0
Say = Callable[[str], None]


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """What runs where, once all is ready."""

    pid: int
    ready_after_s: float
    state_dir: str
    bootstrap_servers: str
    embedded: bool
    topic_prefix: str
    fleet: str
    fleet_version: int
    services: dict[str, str]
    """Service to the API of its endpoints."""
    gateways: dict[str, str]
    api_key_file: str | None
    """Of the key made here; None where the file says who may call."""
    trust_file: str
    processes: tuple[running.Process, ...]


class Up:
    """One run. `runtime` is the Java and the jars of an embedded broker, None to use an existing one.

    `say` hears sentences for people; `moves`: also of tables that move.
    """

    def __init__(
        self,
        whole: Whole,
        settings: Settings,
        runtime: Runtime | None,
        environ: Mapping[str, str],
        say: Say,
        *,
        pid: int,
        moves: bool,
    ) -> None:
        self.whole, self.settings, self.runtime = whole, settings, runtime
        self._environ, self._say, self._pid, self._moves = environ, say, pid, moves
        self._started_with = whole
        self._folder, self._watched = settings.state_dir.absolute(), Watched(whole)
        self._broker: EmbeddedKafka | None = None
        self._started_at_s = clock.now_s()
        self._restarts = 0
        self.fleet: Fleet = whole.fleet
        self.credential: credentials.Credential | None = None

    async def run(self, ready: Callable[[Ready], None]) -> None:
        """Until cancelled; `ready` is told once all runs. Whatever was started is ended, in order, in any case.

        Raises Stop when something cannot be had at the start.
        """
        began_s = clock.monotonic_s()
        with taken(self._folder):
            async with self._kafka(), self._children() as children:
                await self._start(children)
                self._note(children)
                ready(self._ready(children, clock.monotonic_s() - began_s))
                works: list[Awaitable[None]] = [
                    children.keep(lambda news: self._heard(news, children), self._kept()),
                    self._follow(children),
                ]
                if self._moves:
                    works.append(tell_moves(self.settings, public_path(self._folder / SIGNING_KEY), self._say))
                await together(*works)

    # ------------------------------------------------------------ started, and ended

    @contextlib.asynccontextmanager
    async def _kafka(self) -> AsyncIterator[None]:
        if self.runtime is None:
            yield
            return
        from tradewind.embedded import EmbeddedKafka

        self._say("starting Kafka")
        async with EmbeddedKafka(self.runtime, self._folder / "kafka") as broker:
            self._broker = broker
            if broker.port != broker.wanted_port:
                self._say(f"port {broker.wanted_port} is taken; Kafka listens on {broker.port}")
            # whatever the file says of a Kafka of hers: here is one broker, and it is ours
            update = {"bootstrap_servers": broker.bootstrap_servers, "replication": 1}
            self.settings = self.settings.model_copy(update=update)
            try:
                yield
            finally:
                self._say("stopping Kafka")

    @contextlib.asynccontextmanager
    async def _children(self) -> AsyncIterator[Children]:
        upstreams = self.whole.gateway.fields.get("upstreams") or {}
        of_actuators = actuators.referenced(self.whole.actuators)
        children = Children(self.settings, self._environ, of_gateways=referenced(upstreams), of_actuators=of_actuators)
        try:
            yield children
        finally:
            if children.listed():
                self._say("stopping gateways, then workers")
            running.forget(self._folder)
            await children.stop()

    async def _start(self, children: Children) -> None:
        ports = gateway_ports(self.whole.fleet, self.whole.gateway, self.whole.path, self._say)
        signer = load_or_make(self._folder / SIGNING_KEY)
        self._say(f"tables are signed by key {signer.kid}; gateways trust {public_path(self._folder / SIGNING_KEY)}")
        if credentials.needed(self.whole.gateway.fields):
            self.credential = credentials.load_or_make(self._folder, self.whole.fleet)
        await ensure_topics(self.settings, self._say)
        self.fleet = await publish_next(self.whole.fleet, self.settings)
        self._say(f"starting workers and {len(ports)} gateway{'s' * (len(ports) != 1)}")
        section = self.whole.actuators
        await children.start(
            {origin: self._gateway(origin, port) for origin, port in ports.items()},
            actuators.written(section) if section is not None else None,
        )

    def _gateway(self, origin: str, port: int) -> dict[str, Any]:
        """Fields of one gateway's config."""
        said = self.whole.gateway.fields
        trust = [*(said.get("trust") or ()), str(public_path(self._folder / SIGNING_KEY))]
        keys = {"keys": str(self.credential.hashes)} if self.credential else {}
        return {**said, **keys, "origin": origin, "name": f"gw-{origin}", "port": port, "trust": trust}

    def _kept(self) -> tuple[Kept, ...]:
        """The broker is kept there as our children are."""
        from tradewind.processes import Kept

        return (Kept(self._broker.child, self._broker.start),) if self._broker else ()

    # ------------------------------------------------------------ while it runs

    def _heard(self, news: News, children: Children) -> None:
        if not news.back:
            self._say(f"{news.name} ended ({news.why}); it is started again")
            return
        self._restarts += 1
        self._say(f"{news.name} is back (restart {self._restarts} of this run)")
        self._note(children)

    async def _follow(self, children: Children) -> None:
        """Take over what the file says, for ever."""
        async for said in changes(self._watched):
            if isinstance(said, BadFleet):
                self._say(f"version {self.fleet.version} of the fleet stays in force:\n{said.what}")
            else:
                await self._take_over(said)
                self._note(children)

    async def _take_over(self, new: Whole) -> None:
        old, self.whole = self.whole, new
        for field in need_restart(self._started_with, new):
            self._say(f"{field} changed in {new.path}: restart needed (Ctrl-C, then `tradewind up`)")
        try:
            published = await until_taken(lambda: publish_next(new.fleet, self.settings), self._say)
        except Stop as stop:
            self.whole = old
            self._say(f"version {self.fleet.version} of the fleet stays in force: {stop}")
            return
        self._let_in(new.fleet)
        same = published.version == self.fleet.version
        self.fleet = published
        self._say(f"{new.path} was read again: " + ("the fleet is the same" if same else f"fleet {_told(published)}"))

    def _let_in(self, fleet: Fleet) -> None:
        """Classes may have changed; gateways read the file again. After publishing: a refused fleet changes nothing."""
        if self.credential is None:
            return
        try:
            credentials.load_or_make(self._folder, fleet)
        except Stop as stop:
            self._say(f"callers keep the classes they had: {stop}")

    def _note(self, children: Children) -> None:
        """Write down what runs, for other commands."""
        broker = self._broker
        ours = (running.Process(name="kafka", role="kafka", pid=broker.child.pid or 0),) if broker else ()
        note = running.Running(
            pid=self._pid,
            started_at_s=self._started_at_s,
            bootstrap_servers=self.settings.bootstrap_servers,
            topic_prefix=self.settings.topic_prefix,
            fleet=self.fleet.fleet,
            gateways=dict(children.urls),
            processes=(*ours, *children.listed()),
        )
        running.note(self._folder, note)

    def _ready(self, children: Children, took_s: float) -> Ready:
        return Ready(
            pid=self._pid,
            ready_after_s=round(took_s, 1),
            state_dir=str(self.settings.state_dir),
            bootstrap_servers=self.settings.bootstrap_servers,
            embedded=self.runtime is not None,
            topic_prefix=self.settings.topic_prefix,
            fleet=self.fleet.fleet,
            fleet_version=self.fleet.version,
            services={service: e.api for e in self.fleet.endpoints for service in e.services},
            gateways={o.name: children.urls[o.name] for o in self.fleet.origins},
            api_key_file=str(self.settings.state_dir / credentials.KEY) if self.credential else None,
            trust_file=str(public_path(self.settings.state_dir / SIGNING_KEY)),
            processes=children.listed(),
        )


def _told(fleet: Fleet) -> str:
    return f"{fleet.fleet} version {fleet.version} is in force, with {len(fleet.endpoints)} endpoints"


async def until_taken(send: Callable[[], Awaitable[Fleet]], say: Say) -> Fleet:
    """What `send` gives, tried again while Kafka is away; raises Stop for what trying again does not mend."""
    told = False
    while True:
        try:
            return await send()
        except Denied:
            raise
        except (Missing, Retry) as away:
            if not told:
                say(f"the new fleet waits: {away}")
            told = True
            await asyncio.sleep(_AGAIN_S)
