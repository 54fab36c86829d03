"""One run of the demo, from an empty folder to a report, and nothing left behind.

broker ─┬─ topics ── fleet ─┬─ workers ────────┐
fleet ──┘                   ├─ gateways ───────┼── load, acts, outage ── report
                            └─ pretend cloud ──┘   (where the scenario scales)
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec
from aiokafka.errors import KafkaError

from router_sync import fleet as fleets
from router_sync.keys import load_or_make
from router_sync.policy.likely import cautions
from streams.contract.errors import Stop
from streams.runtime import admin, clock
from streams.settings import Settings
from tradewind.demo import cloud, elsewhere, hook, parts, report, rounds, scenarios
from tradewind.demo.acts import ACTS, Acted, Stage
from tradewind.demo.book import Book
from tradewind.demo.callers import api_keys, targets
from tradewind.demo.checks import check_cold_start, check_notice, outage_of
from tradewind.demo.children import Children, write_api_keys
from tradewind.demo.continued import Continued
from tradewind.demo.folder import fresh_folder
from tradewind.demo.keys import keys
from tradewind.demo.options import Options
from tradewind.demo.pretend_fleet import PretendFleet, Seat, moved, note, placed
from tradewind.demo.restarts import Restarts
from tradewind.demo.screen import Screen, hint
from tradewind.demo.show import Show
from tradewind.demo.watch import Onlooker, watching
from tradewind.embedded import USUAL_PORT, EmbeddedKafka, Runtime
from tradewind.fleets import publish
from tradewind.load import Counters, HttpSender, Outcome, Target, drive, parse_surges, plan
from tradewind.load.sender import SILENCE_TIMEOUT_S
from tradewind.ports import Reserved
from tradewind.processes import Kept, News, Processes

OUTCOMES = "outcomes.jsonl"
SLOW_SILENCE_S = 60.0
"""Where tokens are slow, a plain answer of many is silent for long."""


class Play:
    """One run. `runtime` is the Java and the jars of an embedded broker, None to use an existing one."""

    def __init__(
        self, options: Options, settings: Settings, runtime: Runtime | None, environ: Mapping[str, str]
    ) -> None:
        _, self.scenario, wanted = scenarios.load(options.scenario)
        self.options = options = options.settled(self.scenario)
        self.wanted = cloud.declaring(wanted, options.cold_start_s) if options.cold_start_s is not None else wanted
        self.runtime, self.environ = runtime, dict(environ)
        self.settings = settings if runtime else elsewhere.apart(settings, options.data, keep=options.keep)
        self.apart = self.settings.topic_prefix != settings.topic_prefix
        self.fleet = fleets.with_version(self.wanted, int(clock.now_s()))
        self.seats: tuple[Seat, ...] = ()
        self.regions = sorted({e.region for e in self.fleet.endpoints})
        self.outage, self.acted = outage_of(options, self.regions), Acted()
        check_notice(options, self.scenario)
        check_cold_start(options, self.scenario)
        self.first = rounds.arrivals(self.options, 0, 0.0)
        self.counters, self.book, self.restarts = Counters(), Book(), Restarts()
        self.onlooker = Onlooker(clock.now_s(), self._note)
        self.show = Show(Screen(self.fleet, self.onlooker, self.counters), as_json=options.as_json)
        self.pressed: asyncio.Queue[str] = asyncio.Queue()
        self.stop = asyncio.Event()
        self.playing = False
        self.began_at_s = 0.0
        self.ended_early: str | None = None
        """Why the run ended before its time; set by its end."""
        self.unkept: str | None = None
        """Why the folder has no outcomes; set by its end."""
        self.broker: EmbeddedKafka | None = None
        self.api_keys = api_keys(self.fleet)
        cold_start_s = options.cold_start_s
        self.cloud = cloud.Cloud(self.fleet, cold_start_s, clock.now_s) if cold_start_s is not None else None

    async def run(self) -> report.Report:
        """The report. Stopped early (`stop` set, or cancelled) everything started is ended all the same.

        What goes wrong while it plays ends it, and is in the report; what goes wrong before is raised.
        """
        began_s = clock.monotonic_s()
        folder = self.options.data
        with fresh_folder(folder, keep=self.options.keep), Reserved() as ports:
            self.fleet, self.seats = placed(self.fleet, ports)
            async with (
                self._broker(folder, ports) as broker,
                self._topics(),
                watching(self.onlooker, self.settings, clock.now_s) as watched,
                self._cloud(folder, ports) as actuators,
                Processes(folder / "log", environ=self._told()) as processes,
            ):
                pretend = self._pretend(processes, folder)
                gateways = await self._start(processes, pretend, folder, ports, actuators)
                prefix, servers = self.settings.topic_prefix, self.settings.bootstrap_servers
                note(folder, self.seats, {"gateways": gateways, "bootstrap_servers": servers, "topic_prefix": prefix})
                startup_s = clock.monotonic_s() - began_s
                self._say(f"ready in {startup_s:.1f} s; gateways: {', '.join(f'{o} {u}' for o, u in gateways.items())}")
                played_s, continued = await self._play(processes, pretend, gateways, watched)
                if self._broker_is_away():
                    processes.kill()  # nobody is there to take their last words, and they would wait for it
            self._keep_outcomes(folder / OUTCOMES)
            shown = parts.measured(self._run(pretend), self.scenario.shows)
        made = report.make(self.book, self.onlooker, broker, self.outage, seconds=played_s, startup_s=startup_s)
        return msgspec.structs.replace(
            made,
            broker_outage=self._broker_outage(),
            continued=continued,
            restarts=self.restarts.all,
            ended_early=self.ended_early,
            scenario=self.options.scenario,
            parts=shown,
        )

    def _pretend(self, processes: Processes, folder: Path) -> PretendFleet:
        ledgers, of = self._ledgers(folder), self.scenario
        return PretendFleet(self.fleet, self.seats, processes, self.options.seed, ledgers, of.token_ms, of.saturates_at)

    def _ledgers(self, folder: Path) -> Path | None:
        """Where endpoints write down whom they received, if the report asks for it."""
        if not {"breaches", "drained_s"} & set(self.scenario.shows):
            return None
        (ledgers := folder / "received").mkdir(exist_ok=True)
        return ledgers

    def _run(self, pretend: PretendFleet) -> parts.Run:
        return parts.Run(
            fleet=self.fleet,
            outcomes=list(self.book.last),
            surges=parse_surges(self.options.surge),
            tables=[(at_s - self.began_at_s, table) for at_s, table in self.onlooker.history],
            received=pretend.received(self.began_at_s),
            turns=self.acted.turns,
            reclaimed=self.acted.reclaimed,
            plans=[(at_s - self.began_at_s, plan) for at_s, plan in self.onlooker.plans],
            capacity=[(at_s - self.began_at_s, said) for at_s, said in self.onlooker.capacity],
            cold_start_s=self.options.cold_start_s or 0.0,
            moves=self.acted.moves.total() if self.acted.moves is not None else {},
        )

    def _keep_outcomes(self, path: Path) -> None:
        try:
            path.write_bytes(msgspec.json.Encoder().encode_lines(list(self.book.last)))
        except OSError as error:
            self.unkept = f"{path} could not be written ({error.strerror}); the report is whole all the same"

    def _broker_is_away(self) -> bool:
        return self.broker is not None and (not self.broker.running or self.restarts.missing(self.broker.child.name))

    def _broker_outage(self) -> report.BrokerOutage | None:
        away = self.restarts.first(self.broker.child.name) if self.broker is not None else None
        if away is None or away.back_at_s is None:
            return None
        return report.broker_outage(list(self.book.last), self.onlooker, away.at_s, away.back_at_s, self.began_at_s)

    # ------------------------------------------------------------ setting the stage

    @contextlib.asynccontextmanager
    async def _broker(self, folder: Path, ports: Reserved) -> AsyncIterator[report.Broker]:
        if self.runtime is None:
            yield report.Broker("Apache Kafka", "unknown", False)
            return
        port = ports.take(USUAL_PORT)
        async with EmbeddedKafka(self.runtime, folder / "kafka", port=port) as broker:
            self.broker = broker
            if broker.port != USUAL_PORT:
                self._say(f"port {USUAL_PORT} is taken; the broker listens on {broker.port}")
            self.settings = self.settings.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})
            yield report.Broker("Apache Kafka", broker.version, True)

    @contextlib.asynccontextmanager
    async def _topics(self) -> AsyncIterator[None]:
        """The topics are there. Those made elsewhere under a prefix of this run's own are deleted at its end."""
        if self.runtime is None or self.options.keep:
            await elsewhere.refuse_other_fleets(self.settings, self.fleet.fleet)
        made = await admin.create(self.settings)
        if self.runtime is None:
            self._say(f"topics on {self.settings.bootstrap_servers} begin with {self.settings.topic_prefix}")
        try:
            yield
        finally:
            away = self.runtime is None and self.apart and not self.options.keep
            if away and not await elsewhere.remove(self.settings, made):
                self._say(f"the topics {self.settings.topic_prefix}.* could not be deleted; they stay")

    @contextlib.asynccontextmanager
    async def _cloud(self, folder: Path, ports: Reserved) -> AsyncIterator[Path | None]:
        """What launches replicas, where the scenario scales; gives what its actuators worker has to know."""
        if self.cloud is None:
            yield None
            return
        async with hook.listening(self.cloud, folder, ports.take(hook.PORT), clock.now_s) as config:
            yield config

    def _told(self) -> dict[str, str]:
        """What the children are told: the same settings, in the environment."""
        told = {
            "TRADEWIND_BOOTSTRAP_SERVERS": self.settings.bootstrap_servers,
            "TRADEWIND_TOPIC_PREFIX": self.settings.topic_prefix,
            "TRADEWIND_STATE_DIR": str(self.options.data.resolve()),
            "TRADEWIND_CONFIG": "",  # a tradewind.yaml that happens to be here is another fleet's
        }
        return {**self.environ, **told}

    async def _start(
        self, processes: Processes, pretend: PretendFleet, folder: Path, ports: Reserved, actuators: Path | None
    ) -> dict[str, str]:
        for sentence in moved(self.wanted, self.seats):
            self._say(sentence)
        signer = load_or_make(folder / "router.key")
        self._say(f"tables are signed by key {signer.kid}; its public half is {folder / 'router.key.pub'}")
        write_api_keys(folder, self.api_keys)
        await publish(self.fleet, self.settings)
        if found := len(list(cautions(self.fleet))):
            self._say(f"cautions about this fleet, such as rules that find nothing to act on in it: {found}")
        children = Children(processes, folder, ports, self._say)
        await asyncio.gather(
            pretend.start(),
            *(children.worker(*words) for words in _rooms(actuators)),
            *(children.gateway(number, origin.name) for number, origin in enumerate(self.fleet.origins)),
        )
        return children.gateways

    # ------------------------------------------------------------ the play

    async def _play(
        self,
        processes: Processes,
        pretend: PretendFleet,
        gateways: Mapping[str, str],
        watched: asyncio.Task[None],
    ) -> tuple[float, int | None]:
        """How many seconds it played, and how many streams went on elsewhere."""
        began_s, self.began_at_s, self.playing = clock.monotonic_s(), clock.now_s(), True
        self.show.screen.hint, continued = hint(gateways, self.regions), Continued(gateways)
        aside = [
            watched,  # looks no longer than the play: what ends after it looks like failure
            asyncio.create_task(processes.keep(self._missed, also=self._kept())),
            asyncio.create_task(continued.follow()),
            asyncio.create_task(self._break(pretend)),
            asyncio.create_task(self._break_broker()),
            asyncio.create_task(self._obey(pretend)),
            asyncio.create_task(self.show.draw(self._at_s)),
            *(asyncio.create_task(self._act(name, pretend, gateways)) for name in self.scenario.acts),
        ]
        shooting = asyncio.create_task(self._shoot(gateways, began_s))
        try:
            with keys(self._press):
                await _first_of(shooting, aside)
        except (Stop, KafkaError, OSError) as error:  # it ends with its report; a defect ends without
            self.ended_early = str(error)
        finally:
            self.stop.set()
            for task in (shooting, *aside):
                task.cancel()
            await asyncio.gather(shooting, *aside, return_exceptions=True)
        await continued.ask()
        return clock.monotonic_s() - began_s, continued.total

    async def _act(self, name: str, pretend: PretendFleet, gateways: Mapping[str, str]) -> NoReturn:
        stage = Stage(
            self.scenario, self.options, self.fleet, self.settings, pretend, gateways, self._targets(gateways),
            self._at_s, self._note, self._see, self.acted, self.cloud,
        )  # fmt: skip
        await ACTS[name](stage)
        await asyncio.Event().wait()
        raise AssertionError

    def _at_s(self) -> float:
        return clock.now_s() - self.began_at_s

    def _kept(self) -> list[Kept]:
        """The broker is started elsewhere, and kept there as our children are."""
        return [Kept(self.broker.child, self.broker.restart)] if self.broker is not None else []

    def _missed(self, news: News) -> None:
        self._note(self.restarts.hear(news, self._at_s()))
        if self.broker is not None and news.name == self.broker.child.name and not news.back:
            self._note("gateways go on with their last table")

    async def _shoot(self, gateways: Mapping[str, str], began_s: float) -> None:
        """Rounds of load until the run is over or stopped."""
        number, from_s = 0, 0.0
        called = self._targets(gateways)
        patience_s = SILENCE_TIMEOUT_S if self.scenario.token_ms is None else SLOW_SILENCE_S
        async with HttpSender(clock.monotonic_s, silence_timeout_s=patience_s) as send:
            while not self.stop.is_set() and (lasts_s := rounds.lasts_s(self.options, from_s)) > 0:
                await self._round(number, from_s, called, send)
                await self._until(began_s + from_s + lasts_s)  # the last arrival may come before the round's end
                number, from_s = number + 1, clock.monotonic_s() - began_s

    def _targets(self, gateways: Mapping[str, str]) -> list[Target]:
        return targets(self.fleet, self.scenario, gateways, self.api_keys, self.options.stream_share)

    def _see(self, outcome: Outcome) -> None:
        self.book.add(outcome)
        self.show.screen.recent.append(outcome)

    async def _round(self, number: int, from_s: float, targets: Sequence[Target], send: HttpSender) -> None:
        def seen(outcome: Outcome) -> None:
            self._see(msgspec.structs.replace(outcome, at_s=from_s + outcome.at_s))

        arrivals = rounds.arrivals(self.options, number, from_s) if number else self.first
        shots = plan(arrivals, targets, random.Random(self.options.seed + number))
        await drive(shots, send, monotonic_s=clock.monotonic_s, counters=self.counters, on_outcome=seen, stop=self.stop)

    async def _until(self, at_s: float) -> None:
        """Comes back at `at_s`, monotonic seconds, or when stopped."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), at_s - clock.monotonic_s())

    async def _break(self, pretend: PretendFleet) -> None:
        if self.outage is not None:
            await asyncio.sleep(self.outage.at_s)
            await self._turn(self.outage.region, pretend, alive=False)
            await asyncio.sleep(self.outage.until_s - self.outage.at_s)
            await self._turn(self.outage.region, pretend, alive=True)
        await asyncio.Event().wait()

    async def _turn(self, region: str, pretend: PretendFleet, *, alive: bool) -> None:
        if alive:
            await pretend.revive(region)
        else:
            pretend.kill(region)
        self._note(f"{region}: its endpoints are back" if alive else f"{region}: every endpoint was killed")

    def _press(self, key: str) -> None:
        """1, 2, 3 … break a region, or mend it; q ends the run."""
        if key == "q":
            self.stop.set()
        else:
            self.pressed.put_nowait(key)

    async def _obey(self, pretend: PretendFleet) -> None:
        """Do as the keys say, one after the other, for ever."""
        while True:
            key = await self.pressed.get()
            if not key.isdecimal() or not 0 < int(key) <= len(self.regions):
                continue
            region = self.regions[int(key) - 1]
            try:
                await self._turn(region, pretend, alive=not pretend.whole(region))
            except Stop as error:
                self._note(str(error))  # the run goes on; the key may be pressed again

    async def _break_broker(self) -> None:
        if self.options.broker_outage_at_s is not None and self.broker is not None:
            await asyncio.sleep(self.options.broker_outage_at_s)
            self.broker.child.crash()  # as if by a stranger's hand: it is missed and started again as any other
        await asyncio.Event().wait()

    def _note(self, words: str) -> None:
        self.show.note(words)

    def _say(self, words: str) -> None:
        self.show.say(words)


def _rooms(actuators: Path | None) -> list[tuple[str, ...]]:
    """Words for the worker of each room that is needed."""
    loop: list[tuple[str, ...]] = [("streams",), ("router",)]
    return loop if actuators is None else [*loop, ("forecasting",), ("actuators", "--config", str(actuators))]


async def _first_of(main: asyncio.Task[None], aside: Sequence[asyncio.Task[None]]) -> None:
    """Comes back when `main` is done; raises what any of them raised first."""
    done, _ = await asyncio.wait({main, *aside}, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
