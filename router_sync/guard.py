"""Law at the endpoint: whoever serves refuses by itself what its own facts do not permit.

    guard.yaml   policies: [gdpr, ./ours.yaml]
                 endpoint: {endpoint: eu-west-a, country: IE, provider: aws, certificate: [iso-27001]}

    app = asgi(app, Guard.load("guard.yaml"))                       # Starlette, FastAPI, vLLM's server ...
    web.Application(middlewares=[middleware(Guard.load("guard.yaml"))])     # aiohttp

The gateway says in headers what the request is (`policy.headers`); the endpoint knows where and what it is. A request
of which no gateway has said anything is refused. A guard is no lock: who can reach the endpoint can write such headers,
so let only gateways reach it. It needs the contract and a file; neither numpy nor aiohttp nor Kafka.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec
from ruamel.yaml.comments import CommentedMap

from router_sync.policy import file
from router_sync.policy.facts import CERTIFICATE, Facts
from router_sync.policy.headers import GUARD, heard
from router_sync.policy.rules import OWN, Brief, Denial, Judge
from router_sync.policy.sound import no_value
from router_sync.reading import BadFleet, Reader, plain, text_of, tree_of
from streams.contract.records import Policy

FREE: Final = ("/health", "/healthz", "/livez", "/readyz", "/metrics", "/ping")
"""Paths that carry no request of anybody's: probes ask there."""
_REMEMBERED: Final = 1024
_NOBODY: Final = Denial(OWN, "jurisdictions", "requires x-tradewind-jurisdictions, which no gateway has sent with it")
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]


class Guard:
    """Answers whether a request may be processed here. `own`: facts of this endpoint; others are unknown."""

    def __init__(self, policies: Iterable[Policy], own: Facts, free: Iterable[str] = FREE) -> None:
        self._own, self._free = own, frozenset(free)
        self._judge = Judge(policies)
        self._brief = lru_cache(_REMEMBERED)(self._briefed)

    @classmethod
    def load(cls, path: Path | str, free: Iterable[str] = FREE) -> Guard:
        """The guard that the file `path` describes. Raises BadFleet with all that is wrong with it."""
        reader = Reader(str(path))
        tree = tree_of(text_of(Path(path)), reader.name, "policies and endpoint")
        reader.known(tree, "", ("policies", "endpoint"))
        policies, own = file.section(tree, reader), _own(tree, reader)
        if not policies and not reader.problems:
            reader.wrong("policies", None, f"Name one of {', '.join(file.shipped())}, or a path like ./ours.yaml.")
        if reader.problems:
            raise BadFleet(reader.name, reader.problems)
        return cls(policies, own, free)

    def denials(self, headers: Iterable[tuple[str, str]]) -> tuple[Denial, ...]:
        """All that forbids a request with these `headers` to be processed here; nothing: it may be."""
        said = heard(headers)
        if said.jurisdictions is None:
            return (_NOBODY,)
        return self._brief(tuple(said.facts.items()), said.jurisdictions).denials(self._own)

    def refuses(self, path: str, headers: Iterable[tuple[str, str]]) -> tuple[Denial, ...]:
        """The same for a request to `path`; probes are free."""
        return () if path in self._free else self.denials(headers)

    def _briefed(self, facts: tuple[tuple[str, tuple[str, ...]], ...], jurisdictions: tuple[str, ...]) -> Brief:
        return self._judge.brief(dict(facts), jurisdictions)


def _own(tree: CommentedMap, reader: Reader) -> Facts:
    given, own = tree.get("endpoint"), {"place": ("cloud",)}
    if not isinstance(given, CommentedMap):
        reader.wrong("endpoint", plain(given), "Write what this endpoint is, like {country: IE, provider: aws}.")
        return own
    reader.known(given, "endpoint", file.TARGET_FACTS)
    for fact, value in plain(given).items():
        values = value if isinstance(value, list) and fact == CERTIFICATE else [value]
        for one in values:
            remedy = no_value(fact, one) if isinstance(one, str) else "Write a text."
            if remedy is not None:
                reader.wrong(f"endpoint.{fact}", one, remedy)
        own[fact] = tuple(values)
    return own


def body(denials: tuple[Denial, ...]) -> bytes:
    """What a refused caller is told, in OpenAI's shape."""
    message = f"This endpoint may not process this request: {'; '.join(map(str, denials))}."
    error = {"message": message, "type": "permission_error", "param": None, "code": "forbidden_by_guard"}
    return msgspec.json.encode({"error": error})


def told(denials: tuple[Denial, ...]) -> dict[str, str]:
    """The headers of a refusal."""
    return {"content-type": "application/json", GUARD: ", ".join(denial.ref for denial in denials)}


def asgi(app: App, guard: Guard) -> App:
    """`app` behind `guard`: what it refuses is answered with 451, and the app never hears of it."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        denials: tuple[Denial, ...] = ()
        if scope["type"] in ("http", "websocket"):
            headers = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
            denials = guard.refuses(scope["path"], headers)
        if not denials:
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            head = [(name.encode(), value.encode()) for name, value in told(denials).items()]
            await send({"type": "http.response.start", "status": 451, "headers": head})
            await send({"type": "http.response.body", "body": body(denials)})

    return guarded


def middleware(guard: Guard) -> Any:
    """A middleware for an aiohttp application."""
    from aiohttp import web

    @web.middleware
    async def guarded(request: web.Request, handler: Callable[[Any], Awaitable[Any]]) -> web.StreamResponse:
        if denials := guard.refuses(request.path, request.headers.items()):
            return web.Response(status=451, body=body(denials), headers=told(denials))
        answer: web.StreamResponse = await handler(request)
        return answer

    return guarded
