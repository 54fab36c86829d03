"""One run of the demo, from an empty folder to a report, and nothing left behind.

broker ─┬─ topics ── fleet ─┬─ worker streams ─┐
fleet ──┘                   ├─ worker router ──┼── load ── outage ── report
                            └─ gateways ───────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import random
import secrets
import shutil
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import msgspec
from rich.console import Console
from rich.live import Live

from router_sync import fleet as fleets
from router_sync.keys import load_or_make
from streams.contract.errors import Missing
from streams.runtime import admin, clock
from streams.settings import Settings
from tradewind.demo import report
from tradewind.demo.keys import keys
from tradewind.demo.options import Options
from tradewind.demo.outage import Outage, parse_outage
from tradewind.demo.pretend_fleet import PretendFleet, note, placed
from tradewind.demo.screen import Screen
from tradewind.demo.watch import Seat, watch
from tradewind.embedded import EmbeddedKafka, Runtime
from tradewind.fleets import publish
from tradewind.load import (
    SAMPLE,
    Arrivals,
    Counters,
    HttpSender,
    Outcome,
    Target,
    drive,
    load,
    parse_surges,
    plan,
)
from tradewind.ports import free_port
from tradewind.processes import Processes

GATEWAY_PORT = 18080
READY_S = 30.0
FOREVER_S = 24 * 3600.0
DRAW_S = 0.5
KEPT = 500_000
"""Outcomes a run keeps for its report; an endless one forgets the oldest."""


class Play:
    """One run. `runtime` is the Java and the jars of an embedded broker, None to use an existing one."""

    def __init__(
        self, options: Options, settings: Settings, runtime: Runtime | None, environ: Mapping[str, str]
    ) -> None:
        self.options, self.settings, self.runtime = options, settings, runtime
        self.environ = dict(environ)
        self.fleet, self.seats = placed(fleets.load(Path(str(files("tradewind.demo") / "fleet.yaml"))))
        self.regions = sorted({e.region for e in self.fleet.endpoints})
        self.outage: Outage | None = parse_outage(options.outage, self.regions) if options.outage else None
        self.seconds = options.seconds if options.seconds is not None else FOREVER_S
        self.arrivals: Arrivals = load(
            options.trace or SAMPLE,
            seconds=min(self.seconds, 3600.0),
            seed=options.seed,
            mean_rps=options.rps,
            surges=parse_surges(options.surge) if options.surge else (),
        )
        self.seat, self.counters = Seat(), Counters()
        self.outcomes: deque[Outcome] = deque(maxlen=KEPT)
        self._turning: set[asyncio.Future[None]] = set()
        self.stop = asyncio.Event()
        self.playing = False
        self.began_at_s = 0.0
        self.broker_away: tuple[float, float] | None = None
        self.broker: EmbeddedKafka | None = None
        self.gateways: dict[str, str] = {}
        self.api_keys = {c.name: f"demo-{secrets.token_urlsafe(18)}" for s in self.fleet.services for c in s.classes}

    async def run(self) -> report.Report:
        """The report. Stopped early (`stop` set, or cancelled) everything started is ended all the same."""
        began_s = clock.monotonic_s()
        folder = self.options.data
        with fresh_folder(folder, keep=self.options.keep):
            async with (
                self._broker(folder) as broker,
                Processes(folder / "log", environ=self._told()) as processes,
            ):
                pretend = PretendFleet(self.fleet, self.seats, processes, self.options.seed)
                gateways = await self._start(processes, pretend, folder)
                note(folder, self.seats, {"gateways": gateways, "bootstrap_servers": self.settings.bootstrap_servers})
                startup_s = clock.monotonic_s() - began_s
                self._say(f"ready in {startup_s:.1f} s; gateways: {', '.join(f'{o} {u}' for o, u in gateways.items())}")
                played_s = await self._play(processes, pretend, gateways)
            (folder / "outcomes.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(list(self.outcomes)))
        made = report.make(list(self.outcomes), self.seat, broker, self.outage, seconds=played_s, startup_s=startup_s)
        return msgspec.structs.replace(made, broker_outage=self._broker_outage())

    def _broker_outage(self) -> report.BrokerOutage | None:
        if self.broker_away is None:
            return None
        return report.broker_outage(list(self.outcomes), self.seat, *self.broker_away, self.began_at_s)

    # ------------------------------------------------------------ setting the stage

    @contextlib.asynccontextmanager
    async def _broker(self, folder: Path) -> AsyncIterator[report.Broker]:
        if self.runtime is None:
            yield report.Broker("Apache Kafka", "unknown", False)
            return
        async with EmbeddedKafka(self.runtime, folder / "kafka") as broker:
            self.broker = broker
            if broker.port != broker.wanted_port:
                self._say(f"port {broker.wanted_port} is taken; the broker listens on {broker.port}")
            self.settings = self.settings.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})
            yield report.Broker("Apache Kafka", broker.version, True)

    def _told(self) -> dict[str, str]:
        """What the children are told: the same settings, in the environment."""
        told = {
            "TRADEWIND_BOOTSTRAP_SERVERS": self.settings.bootstrap_servers,
            "TRADEWIND_TOPIC_PREFIX": self.settings.topic_prefix,
            "TRADEWIND_STATE_DIR": str(self.options.data.resolve()),
        }
        return {**self.environ, **told}

    async def _start(self, processes: Processes, pretend: PretendFleet, folder: Path) -> dict[str, str]:
        signer = load_or_make(folder / "router.key")
        self._say(f"tables are signed by key {signer.kid}; its public half is {folder / 'router.key.pub'}")
        self._write_api_keys(folder)
        await admin.create(self.settings)
        await publish(self.fleet, self.settings)
        ports: set[int] = set()
        await asyncio.gather(
            pretend.start(),
            self._worker(processes, "streams", ports),
            self._worker(processes, "router", ports),
            *(self._gateway(processes, number, ports, folder) for number in range(len(self.fleet.origins))),
        )
        return self.gateways

    async def _worker(self, processes: Processes, room: str, ports: set[int]) -> None:
        port = _take(ports, None)
        arguments = ("worker", room, "--port", str(port))
        url = f"http://127.0.0.1:{port}/readyz"
        await processes.start(f"worker-{room}", "tradewind", *arguments, ready=url, deadline_s=READY_S)

    async def _gateway(self, processes: Processes, number: int, ports: set[int], folder: Path) -> None:
        origin = self.fleet.origins[number].name
        wanted = GATEWAY_PORT + number
        port = _take(ports, wanted)
        if port != wanted:
            self._say(f"port {wanted} is taken; the gateway of {origin} listens on {port}")
        self.gateways[origin] = f"http://127.0.0.1:{port}"
        await processes.start(
            f"gateway-{origin}",
            "tradewind",
            *("gateway", "--name", f"gw-{origin}", "--origin", origin, "--port", str(port)),
            *("--keys", str(folder / "api-keys.yaml"), "--trust", str(folder / "router.key.pub")),
            ready=f"{self.gateways[origin]}/readyz",
            deadline_s=READY_S,
        )

    def _write_api_keys(self, folder: Path) -> None:
        """One API key a class for this run; the file holds their hashes, and no log shows them."""
        callers = [
            {"sha256": hashlib.sha256(key.encode()).hexdigest(), "tenant": "demo", "classes": [name]}
            for name, key in self.api_keys.items()
        ]
        (folder / "api-keys.yaml").write_bytes(msgspec.json.encode({"keys": callers}))

    # ------------------------------------------------------------ the play

    async def _play(self, processes: Processes, pretend: PretendFleet, gateways: Mapping[str, str]) -> float:
        began_s, self.began_at_s, self.playing = clock.monotonic_s(), clock.now_s(), True
        screen = Screen(self.fleet, self.seat, self.counters, _hint(gateways, self.regions))
        aside = [
            asyncio.create_task(watch(self.seat, self.settings, clock.now_s)),
            asyncio.create_task(processes.watch()),
            asyncio.create_task(self._break(pretend, screen)),
            asyncio.create_task(self._break_broker(screen)),
            asyncio.create_task(self._draw(screen, began_s)),
        ]
        shooting = asyncio.create_task(self._shoot(gateways, screen))
        try:
            with keys(lambda key: self._pressed(key, pretend, screen)):
                await _first_of(shooting, aside)
        finally:
            self.stop.set()
            for task in (shooting, *aside):
                task.cancel()
            await asyncio.gather(shooting, *aside, return_exceptions=True)
        return clock.monotonic_s() - began_s

    async def _shoot(self, gateways: Mapping[str, str], screen: Screen) -> None:
        shots = plan(self.arrivals, self._targets(gateways), random.Random(self.options.seed))

        def seen(outcome: Outcome) -> None:
            self.outcomes.append(outcome)
            screen.recent.append(outcome)

        async with HttpSender(clock.monotonic_s) as send:
            while not self.stop.is_set():
                await drive(
                    shots, send, monotonic_s=clock.monotonic_s, counters=self.counters, on_outcome=seen, stop=self.stop
                )
                if self.options.seconds is not None:
                    break
        with contextlib.suppress(TimeoutError):  # the last arrival may come before the end
            await asyncio.wait_for(self.stop.wait(), self.seconds - (clock.now_s() - self.began_at_s))

    def _targets(self, gateways: Mapping[str, str]) -> list[Target]:
        rates = {o.name: o.demand_rps for o in self.fleet.origins}
        mix = {"interactive": 0.8, "batch": 0.2}
        service = self.fleet.services[0]
        return [
            Target(
                origin, c.name, url, self.api_keys[c.name], service.name, rates[origin] * mix[c.name],
                self.options.stream_share,
            )
            for origin, url in gateways.items()
            for c in service.classes
        ]  # fmt: skip

    async def _break(self, pretend: PretendFleet, screen: Screen) -> None:
        if self.outage is not None:
            await asyncio.sleep(self.outage.at_s)
            await self._turn(self.outage.region, pretend, screen, alive=False)
            await asyncio.sleep(self.outage.until_s - self.outage.at_s)
            await self._turn(self.outage.region, pretend, screen, alive=True)
        await asyncio.Event().wait()

    async def _turn(self, region: str, pretend: PretendFleet, screen: Screen, *, alive: bool) -> None:
        if alive:
            await pretend.revive(region)
        else:
            pretend.kill(region)
        self._note(screen, f"{region}: its endpoints are back" if alive else f"{region}: every endpoint was killed")

    def _pressed(self, key: str, pretend: PretendFleet, screen: Screen) -> None:
        """1, 2, 3 … break a region, or mend it; q ends the run."""
        if key == "q":
            self.stop.set()
        elif key.isdigit() and 0 < int(key) <= len(self.regions):
            region = self.regions[int(key) - 1]
            turn = asyncio.ensure_future(self._turn(region, pretend, screen, alive=not pretend.alive(region)))
            self._turning.add(turn)
            turn.add_done_callback(self._turning.discard)

    async def _break_broker(self, screen: Screen) -> None:
        if self.options.broker_outage_at_s is not None and self.broker is not None:
            await asyncio.sleep(self.options.broker_outage_at_s)
            self.broker.kill()
            self._note(screen, "the broker was killed; gateways go on with their last table")
            await self.broker.restart()
            self.broker_away = (self.options.broker_outage_at_s, clock.now_s() - self.began_at_s)
            self._note(screen, "the broker is back")
        await asyncio.Event().wait()

    # ------------------------------------------------------------ what people see

    async def _draw(self, screen: Screen, began_s: float) -> None:
        console = Console(stderr=True)
        if self.options.as_json or not console.is_terminal:
            while True:
                await asyncio.sleep(10.0)
                at_s, counts = clock.monotonic_s() - began_s, self.counters
                self._say(f"{at_s:4.0f} s: {counts.due} requests, {counts.failed} failed, {counts.open} open")
        with Live(console=console, screen=False, auto_refresh=False) as live:
            while True:
                live.update(screen.drawn(clock.monotonic_s() - began_s, clock.now_s()), refresh=True)
                await asyncio.sleep(DRAW_S)

    def _note(self, screen: Screen, words: str) -> None:
        screen.notes.append(words)
        if self.options.as_json or not sys.stderr.isatty():
            self._say(words)

    def _say(self, words: str) -> None:
        print(words, file=sys.stderr, flush=True)


def _take(taken: set[int], preferred: int | None) -> int:
    port = free_port(preferred, avoid=taken)
    taken.add(port)
    return port


def _hint(gateways: Mapping[str, str], regions: Sequence[str]) -> str:
    breaks = ", ".join(f"{number} {region}" for number, region in enumerate(regions, 1))
    return f"gateways {', '.join(gateways.values())}\nbreak or mend a region: {breaks}   end: q"


async def _first_of(main: asyncio.Task[None], aside: Sequence[asyncio.Task[None]]) -> None:
    """Comes back when `main` is done; raises what any of them raised first."""
    done, _ = await asyncio.wait({main, *aside}, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


@contextlib.contextmanager
def fresh_folder(folder: Path, *, keep: bool) -> Iterator[None]:
    """`folder` for one run at a time: empty unless `keep`.

    Raises Missing when another run has it, or when it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise Missing(f"The folder {folder} cannot be written ({error.strerror})", "Name another: --data DIR") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Missing(f"Another demo runs in {folder}", "Stop it, or name another folder: --data DIR") from None
        if not keep:
            for old in folder.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
                elif old.name != ".lock":
                    old.unlink()
        yield
