"""A request's way: who calls ► which service and class ► attempts until one is answered ► what is said if none was."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from math import inf
from typing import Final, Generic, TypeVar

from aiohttp import web
from prometheus_client import Counter, Histogram

from router_sync.client import LocalEndpoint, Pick, Picker
from router_sync.gateway import ask as asking
from router_sync.gateway.access import CLASS_HEADER, Access, class_of, shown_by
from router_sync.gateway.address import IDEMPOTENT, METHODS, SERVICES, check_length, http_service, openai_path
from router_sync.gateway.ask import Ask, Upload
from router_sync.gateway.blame import Blame
from router_sync.gateway.budget import RetryBudget
from router_sync.gateway.caller import Caller
from router_sync.gateway.config import GatewayConfig
from router_sync.gateway.exchange import Exchange
from router_sync.gateway.facts import RouteFacts
from router_sync.gateway.homes import Homes, Reason
from router_sync.gateway.leaving import Leaving
from router_sync.gateway.onward import Onward, Outcome
from router_sync.gateway.probe import Prober
from router_sync.gateway.refusal import Refusal, error_event
from router_sync.gateway.report import Reporter
from router_sync.gateway.saturation import Kind
from router_sync.gateway.shedding import SHED_HEADER, Shedding
from router_sync.gateway.size import by_size
from router_sync.gateway.slots import Slots
from router_sync.gateway.trip import CallerGone, Failed, Seen, Trip
from router_sync.gateway.turn import Moved
from streams import signals
from streams.contract.records import HARD_ERRORS, Api, ErrorKind
from streams.runtime.clock import Clock

_STATUS: Final[dict[ErrorKind, int]] = {"first_byte_timeout": 504, "stall": 504, "http_429": 429}
_GENERATION: Final = frozenset(
    f"/v1/{path}"
    for path in (
        "chat/completions", "completions", "embeddings", "responses", "messages", "moderations", "rerank", "score",
        "classify", "pooling", "images/generations", "audio/speech", "audio/transcriptions", "audio/translations",
    )
)  # fmt: skip
"""POSTs that leave nothing behind but an answer. Any other (a batch, a file, a fine-tuning job) may have been begun."""
WELL_S: Final = 5.0
"""Who breaks off after having spoken for so long has not failed the request: its attempts are counted anew."""
_CITED: Final = 4
_RULES_BYTES: Final = 1000
_Metric = TypeVar("_Metric", Counter, Histogram)


class Relay:
    """Answers requests to services. `pickers` is the live mapping of services in force."""

    def __init__(
        self,
        config: GatewayConfig,
        pickers: Mapping[str, Picker],
        access: Access,
        exchange: Exchange,
        reporter: Reporter,
        prober: Prober,
        rng: random.Random,
        homes: Homes | None,
        unix_s: Clock,
    ) -> None:
        self._config, self._pickers, self._access = config, pickers, access
        self._exchange, self._reporter, self._prober, self._homes = exchange, reporter, prober, homes
        self._now = asyncio.get_running_loop().time
        self._budget = RetryBudget(config.retries.budget_share, config.retries.budget_per_s, self._now())
        self._slots = Slots(config.limits)
        self.shedding = Shedding(config.tiers, pickers, lambda name: reporter.standing(name).in_flight, rng, self._now)
        self.onward = Onward(config.origin, pickers, self._goes_on)
        self.leaving = Leaving(self._move, rng, now_s=self._now, unix_s=unix_s)
        self.lost_servable = 0
        """Requests that failed though the route named another endpoint that was not tried."""
        self._requests = _Children(signals.REQUESTS)
        self._attempts = _Children(signals.ATTEMPTS)
        self._seconds = _Children(signals.REQUEST_S)
        self._facts = RouteFacts()

    @property
    def in_flight(self) -> int:
        return self._slots.in_flight

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to one request under /v1. Raises Refusal."""
        limits = self._config.limits
        check_length(request, limits.max_uri_bytes)
        path = openai_path(request)
        caller = self._access.who(request.headers, shown_by(request))
        if request.method not in ("POST", "GET"):
            raise _not_allowed(request.method, "GET, POST")
        asked = await asking.read(request, limits)
        picker = self._pickers.get(asked.model)
        if picker is None or api_of(picker) != "openai":
            remedy = f" as a model: ask for {SERVICES}{asked.model[:128]}/" if picker is not None else ""
            message = f"The model {asked.model[:128]!r} does not exist{remedy}."
            raise Refusal(404, "model_not_found", message, param="model")
        return await self._admitted(request, caller, asked, picker, path)

    async def handle_http(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer of a plain HTTP service to one request. Raises Refusal."""
        limits = self._config.limits
        check_length(request, limits.max_uri_bytes)
        caller = self._access.who(request.headers, shown_by(request))
        service, path = http_service(request)
        if request.method not in METHODS:
            raise _not_allowed(request.method, ", ".join(sorted(METHODS)))
        picker = self._pickers.get(service)
        if picker is None or api_of(picker) != "http":
            remedy = "; it is a model: ask below /v1" if picker is not None else ""
            raise Refusal(404, "service_not_found", f"There is no HTTP service {service[:128]!r} here{remedy}.")
        asked = await asking.read_http(request, limits, service)
        return await self._admitted(request, caller, asked, picker, path)

    async def _admitted(
        self, request: web.BaseRequest, caller: Caller, asked: Ask, picker: Picker, path: str
    ) -> web.StreamResponse:
        origin, default = self._config.origin, picker.table.default_class
        class_ = class_of(caller, request.headers, default, partial(picker.route, origin))
        class_ = by_size(asked, picker, origin, class_, path, self._config.assumed_output_tokens)
        self._check_law(asked.model, picker, class_)
        self._admit(asked, caller.tenant, picker, class_)
        self._slots.enter(caller.tenant, asked.stream)
        try:
            return await self._serve(request, caller, asked, picker, class_, path)
        finally:
            self._slots.leave(caller.tenant, asked.stream)

    def _check_law(self, service: str, picker: Picker, class_: str) -> None:
        """Raises Refusal 451 where law leaves the class no endpoint: waiting would not help, nor is anybody down."""
        denials = picker.closed(self._config.origin, class_)
        if not denials:
            return
        self._requests.of(service, class_, "451").inc()
        says = f"No endpoint may process requests of the class {class_!r} from {self._config.origin!r}"
        rules = ", ".join(denial.ref for denial in denials)
        why = "; ".join(denial.cites() for denial in denials[:_CITED])
        raise Refusal(451, "forbidden_by_law", f"{says}: {why}.", headers={"x-tradewind-rules": rules[:_RULES_BYTES]})

    def _admit(self, asked: Ask, tenant: str, picker: Picker, class_: str) -> None:
        route, refusal = picker.route(self._config.origin, class_), self._slots.full(tenant, asked.stream)
        if refusal is None and route is not None:
            session = (asked.model, tenant, asked.key) if asked.key is not None else None
            refusal = self.shedding.refusal(picker, route, self._slots.filled(asked.stream), session)
        self._reporter.arrived(asked.model, class_, shed=refusal is not None)
        if refusal is None:
            return
        self._requests.of(asked.model, class_, str(refusal.status)).inc()
        signals.SHED.labels(asked.model, class_, refusal.headers.get(SHED_HEADER, "limits")).inc()
        refusal.headers[CLASS_HEADER] = class_
        raise refusal

    async def _serve(
        self, request: web.BaseRequest, caller: Caller, asked: Ask, picker: Picker, class_: str, path: str
    ) -> web.StreamResponse:
        began_s, table = self._now(), picker.table
        trip = Trip(
            request,
            asked,
            class_,
            f"{table.epoch}.{table.version}",
            asking.passed_headers(request),
            path,
            began_s + self._config.deadlines.total_s,
        )
        trip.session = (asked.model, caller.tenant, asked.key) if asked.key is not None else None
        trip.facts = self._facts.of(asked.model, picker.route(self._config.origin, class_), caller.tenant)
        try:
            response = await self._attempts_until(trip, picker)
        except Refusal as refusal:
            self._requests.of(trip.service, class_, str(refusal.status)).inc()
            raise
        finally:
            trip.turn.close()
            if trip.blame is not None:
                trip.blame.served |= trip.response is not None  # an answer that broke off was one
                trip.blame.settle()
        self._requests.of(trip.service, class_, str(response.status)).inc()
        self._seconds.of(class_).observe(self._now() - began_s)
        return response

    async def _attempts_until(self, trip: Trip, picker: Picker) -> web.StreamResponse:
        self._budget.request()
        failure, broke_off = None, ""
        refusing: list[tuple[LocalEndpoint, bool]] = []
        elsewhere = partial(self._elsewhere, trip, picker)
        while (pick := self._next(trip, picker, failure)) is not None:
            trip.tried.append(pick.endpoint.name)
            try:
                response = await _last_of(trip, self._attempt(trip, pick, elsewhere, refusing))
            except Failed as failed:
                failure, broke_off = failed, trip.turn.at
            except CallerGone:
                return _hung_up(trip)
            else:
                if response.status < 400:
                    self._accuse_refusing(refusing)
                if broke_off and self.leaving.count(broke_off, "moved", "broke_off"):
                    self._moved(trip, "broke_off")
                return response
        if trip.response is None and refusing and len(refusing) == len(trip.tried):
            self._all_refuse(trip, refusing)
        if trip.response is not None and failure is not None:
            return await self._broken_off(trip, failure)
        return self._lost(trip, picker, failure)

    async def _move(self, trip: Trip, refused: set[str]) -> Outcome:
        """Move a stream, and the session it belongs to, before its endpoint goes."""
        if not self._harmless(trip):
            return "stateful"
        left, outcome = trip.turn.at, await self.onward.before_break(trip, refused)
        if outcome == "moved":
            self._attempts.of(left, "moved").inc()
            self._moved(trip, "notice")
        return outcome

    def _moved(self, trip: Trip, reason: Reason) -> None:
        if self._homes is not None and trip.session is not None:
            self._homes.moved(trip.session, trip.class_, trip.turn.at, reason)

    def _next(self, trip: Trip, picker: Picker, failure: Failed | None) -> Pick | None:
        """The next endpoint to ask; None when there is none, or no more may be asked."""
        if failure is not None:
            if len(trip.tried) >= self._config.retries.attempts or not self._repeatable(trip, failure):
                return None
            if not self._budget.grant(self._now()):
                return None
            signals.RETRIES.labels(failure.kind).inc()
        if trip.response is not None:
            return self.onward.after_break(trip, picker)
        if failure is None and trip.session is not None and self._homes is not None:
            return self._homes.pick(picker, self._config.origin, trip.class_, trip.session)
        return picker.pick(self._config.origin, trip.class_, trip.ask.key, trip.tried)

    def _repeatable(self, trip: Trip, failure: Failed) -> bool:
        """Whether asking again can do no harm."""
        body = trip.ask.body
        if isinstance(body, Upload) and body.begun:
            return False
        return failure.kind == "connect" or failure.unwelcome or failure.forbidden or self._harmless(trip)

    def _harmless(self, trip: Trip) -> bool:
        """Whether an endpoint that has been asked already may go on with it, though another is asked too."""
        if trip.method in IDEMPOTENT:
            return True
        return self._config.retries.generation and trip.path in _GENERATION and not trip.http

    def _elsewhere(self, trip: Trip, picker: Picker) -> bool:
        """Whether a trip that waits for a first byte may be asked of another endpoint, and there is one."""
        body = trip.ask.body
        if len(trip.tried) >= self._config.retries.attempts or (isinstance(body, Upload) and body.begun):
            return False
        return self._harmless(trip) and picker.left(self._config.origin, trip.class_, trip.tried) > 0

    # -- one attempt, and what is learnt from it ----------------------------------------------------------------------

    async def _attempt(
        self, trip: Trip, pick: Pick, elsewhere: Callable[[], bool], refusing: list[tuple[LocalEndpoint, bool]]
    ) -> web.StreamResponse:
        local, seen, began_s = pick.endpoint, Seen(trip.turn.begins(pick.endpoint.name)), self._now()
        standing, trial, settled = self._reporter.standing(local.name), local.begin(), False
        standing.in_flight += 1
        seen.held = standing.in_flight
        if trip.ask.stream:
            self.leaving.enter(local.name, trip)
        try:
            response = await self._exchange.attempt(trip, pick, seen, elsewhere)
            settled = True
            self._answered(trip, pick, seen, response.status, began_s, trial)
            return response
        except Failed as failure:
            if trip.turn.late(seen.attempt):
                raise Moved from None
            settled = True
            if trip.turn.speaker == seen.attempt and self._now() - (seen.first_s or inf) >= WELL_S:
                trip.tried[:] = [local.name]
            self._failed(trip, pick, failure, began_s, trial)
            if failure.unwelcome:
                refusing.append((local, trial))
            raise
        finally:
            standing.in_flight -= 1
            if trip.ask.stream:
                self.leaving.leave(local.name, trip)
            if not settled:  # the caller went away, or was at fault
                local.dropped(trial)

    async def _goes_on(self, trip: Trip, pick: Pick) -> web.StreamResponse:
        """An attempt beside the one that speaks: given up at once when its endpoint falls."""
        return await self._attempt(trip, pick, lambda: True, [])

    def _answered(self, trip: Trip, pick: Pick, seen: Seen, status: int, began_s: float, trial: bool) -> None:
        now_s, local = self._now(), pick.endpoint
        if trip.blame is not None:
            trip.blame.served = status < 400
            trip.blame.refusals += status >= 400
        if status >= 400:
            local.failed(now_s, "client_4xx", trial)
            self._reporter.failed(local.name, trip.service, trip.class_, "client_4xx")
            self._attempts.of(local.name, "client_4xx").inc()
            return
        if trip.streams:
            self.leaving.count(local.name, "kept", "finished")
        latency_ms = (now_s - began_s) * 1000.0
        streamed = trip.streams or trip.ask.stream
        ttft_ms = (seen.first_s - began_s) * 1000.0 if streamed and seen.first_s is not None else None
        known_ms = latency_ms if ttft_ms is None else ttft_ms
        local.ok(now_s, known_ms, trial)
        kind = Kind(trip.service, trip.class_, ttft_ms is not None)
        self.shedding.load(local.name).answered(kind, known_ms, local.slo_ms, seen.held, now_s)
        body = trip.ask.body
        self._reporter.served(
            local.name,
            trip.service,
            trip.class_,
            latency_ms=latency_ms,
            ttft_ms=ttft_ms,
            bytes_in=body.sent if isinstance(body, Upload) else len(body),
            bytes_out=seen.bytes_out,
            tokens=seen.tokens,
        )
        self._attempts.of(local.name, "ok").inc()

    def _failed(self, trip: Trip, pick: Pick, failure: Failed, began_s: float, trial: bool) -> None:
        now_s, local = self._now(), pick.endpoint
        if failure.kind == "first_byte_timeout":
            local.observe(now_s, (now_s - began_s) * 1000.0)  # it takes at least as long as that
        self._attempts.of(local.name, failure.kind).inc()
        if failure.kind == "http_429":
            kind = Kind(trip.service, trip.class_, trip.ask.stream)
            self.shedding.load(local.name).refused(kind, now_s)
        if failure.kind == "http_5xx":
            trip.blame = trip.blame or Blame()
            trip.blame.refusals += 1
            if not trial and self._reporter.well(local.name):
                self._hold(trip, trip.blame, local)
                return
        local.failed(now_s, failure.kind, trial)
        if failure.unwelcome:  # a caller's headers can make it say so: nothing is held against it, nor cut there
            self._reporter.failed(local.name, trip.service, trip.class_, failure.kind)
            if trip.blame is not None:
                trip.blame.refusals += 1
            return
        self._accused(trip, local, failure.kind)

    def _all_refuse(self, trip: Trip, refusing: list[tuple[LocalEndpoint, bool]]) -> None:
        """All said 401. Refusal 401 when they are several: it is likely the request's; of one nobody can tell."""
        self._tell_refusing(refusing)
        if len(refusing) == 1:
            return
        message = (
            f"{len(refusing)} endpoints answered 401 to this request. See its headers, as OpenAI-Organization; "
            "if others are refused too, it is the gateway's credentials: its log names them."
        )
        headers = {"x-tradewind-attempts": str(len(refusing)), "x-tradewind-table": trip.table}
        raise Refusal(401, "upstream_unauthorized", message, headers=headers)

    def _accuse_refusing(self, refusing: list[tuple[LocalEndpoint, bool]]) -> None:
        """Another endpoint has answered what these refused with 401: they are shut here, like one that is down.

        To the fleet they are not down. Who has served others well a moment ago takes our credential: it is not accused.
        """
        for local, trial in self._tell_refusing(refusing):
            local.breaker.hard(self._now(), trial)

    def _tell_refusing(self, refusing: list[tuple[LocalEndpoint, bool]]) -> list[tuple[LocalEndpoint, bool]]:
        """Those that do not take our credential, for all we know; the log is told of each."""
        ours = [(local, trial) for local, trial in refusing if not self._reporter.well(local.name)]
        for local, _ in ours:
            self._exchange.unwelcome(local)
        return ours

    def _hold(self, trip: Trip, blame: Blame, local: LocalEndpoint) -> None:
        """Nothing is said of the endpoint before another one has been asked, or its probe has failed."""
        local.dropped()

        def accuse() -> None:
            local.breaker.hard(self._now())
            self._accused(trip, local, "http_5xx")

        blame.hold(accuse, lambda: self._reporter.failed(local.name, trip.service, trip.class_, "client_4xx"))
        self._prober.ask(local.name)

    def _accused(self, trip: Trip, local: LocalEndpoint, kind: ErrorKind) -> None:
        self._reporter.failed(local.name, trip.service, trip.class_, kind)
        if local.breaker.shut:
            self._exchange.evacuate(local.name)
        if kind in HARD_ERRORS:
            self._prober.suspect(local.name)

    # -- when all else failed -----------------------------------------------------------------------------------------

    def _lost(self, trip: Trip, picker: Picker, failure: Failed | None) -> web.StreamResponse:
        self._reporter.lost(trip.service, trip.class_)
        left = picker.left(self._config.origin, trip.class_, trip.tried)
        headers = {"x-tradewind-attempts": str(len(trip.tried)), "x-tradewind-table": trip.table}
        if left:
            self.lost_servable += 1
            signals.LOST_SERVABLE.labels(trip.service).inc()
            headers["x-tradewind-lost-servable"] = str(left)
        if failure is None:
            raise Refusal(503, "no_endpoint", "No endpoint is left for this class.", headers=headers)
        if failure.forbidden:
            raise Refusal(
                451, "forbidden_by_guard", f"Every endpoint that was asked refuses: {failure.why}.", headers=headers
            )
        if failure.kind == "http_429":
            headers["Retry-After"] = failure.retry_after or "1"
        message = f"{len(trip.tried)} endpoint(s) failed; the last one: {failure.kind}, {failure.why}."
        raise Refusal(_STATUS.get(failure.kind, 502), f"upstream_{failure.kind}", message, headers=headers)

    async def _broken_off(self, trip: Trip, failure: Failed) -> web.StreamResponse:
        """The caller has a part of the answer: let nothing pass for its end."""
        response, transport = trip.response, trip.request.transport
        assert response is not None
        self._reporter.lost(trip.service, trip.class_)
        self.leaving.count(trip.turn.at, "lost", "nowhere" if self.onward.fit(trip) else "stateful")
        signals.event("answer_broken_off", "warning", endpoint=trip.tried[-1], kind=failure.kind)
        if transport is None:
            return response
        if trip.streams:
            event = error_event(502, f"upstream_{failure.kind}", f"The answer broke off: {failure.why}.")
            try:
                async with asyncio.timeout(self._config.limits.send_s):
                    await response.write(event)
            except (ConnectionError, TimeoutError):
                transport.abort()
            else:
                transport.close()  # after what is written; without the last chunk, so that no library sees an end
        else:
            transport.abort()
        return response


def api_of(picker: Picker) -> Api:
    """The API of a service: all its endpoints have the same."""
    return next((endpoint.api for endpoint in picker.endpoints.values()), "openai")


def _not_allowed(method: str, allowed: str) -> Refusal:
    return Refusal(405, "method_not_allowed", f"{method} is not served.", headers={"Allow": allowed})


async def _last_of(trip: Trip, attempt: Awaitable[web.StreamResponse]) -> web.StreamResponse:
    """The answer of an attempt, or of the last that its stream was moved to. Raises what that one does."""
    while True:
        try:
            return await attempt
        except (Moved, Failed):
            if (successor := trip.turn.successor()) is None:
                raise
            attempt = successor


def _hung_up(trip: Trip) -> web.StreamResponse:
    if trip.request.transport is not None:
        trip.request.transport.abort()
    return trip.response or web.Response(status=499)


class _Children(Generic[_Metric]):
    """Children of a metric by label values: looking them up each time would cost microseconds."""

    def __init__(self, metric: _Metric) -> None:
        self._metric: _Metric = metric
        self._children: dict[tuple[str, ...], _Metric] = {}

    def of(self, *labels: str) -> _Metric:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._metric.labels(*labels)
        return child
