"""Where sessions live: a session stays at its endpoint, its home, while that may be used, whatever the shares say.

    request of a session ─► its home is known? ── no ──► one by the table's shares: that is its home now ─► told
                                   │ yes
                       it may be used still? ── yes ──► there: overload, or a better price, moves nobody
                                   │ no: gone, route, drain, down
                                   └──► another one by the shares, attempt + 1 ─► told

What is told on sessions.v1 is what the other gateways go by, and this one when it starts again. Of two words the
higher attempt counts, of two with the same the later on the topic, so that all come to the same home. Where the topic
cannot be read, homes are this gateway's own, and begin by a hash of the session's name: the same at all gateways that
follow the same table. Names are the callers' own: only a hash of (service, tenant, name) leaves the process.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from router_sync.client import Found, Pick, Picker, Source
from router_sync.gateway.budget import RetryBudget
from router_sync.gateway.config import Sessions as Config
from router_sync.gateway.secret import Secret
from router_sync.gateway.sessions import IN_PROGRESS_S
from router_sync.gateway.sessions import Session as Named
from router_sync.gateway.sink import Sink
from streams import signals
from streams.contract.records import RoutingTable, Session
from streams.runtime.clock import Clock

TELL_AGAIN_S: Final = 6 * 3600.0
"""The topic keeps a day."""
_HEX: Final = 32
_decoder: Final = msgspec.json.Decoder(Session)
Reason = Literal["gone", "route", "drain", "down", "notice", "broke_off"]


class _Home:
    """Where one session lives. Times are unix seconds."""

    __slots__ = ("attempt", "class_", "endpoint", "ours", "service", "told_s", "used_s")

    def __init__(self, endpoint: str, service: str, class_: str, attempt: int) -> None:
        self.endpoint, self.service, self.class_, self.attempt = endpoint, service, class_, attempt
        self.told_s = self.used_s = float("-inf")
        self.ours = False
        """This gateway was the last that sent it there, as far as is known here."""


class Homes:
    """Homes of the sessions that were met last, `config.most` of them.

    `may_tell`: whether the topic is there. `unix_s` is unix seconds. Without a `key` names are hashed without one.
    """

    def __init__(
        self, config: Config, gateway: str, sink: Sink, key: Secret | None, may_tell: Callable[[], bool], unix_s: Clock
    ) -> None:
        self._config, self._gateway, self._sink, self._may_tell, self._unix_s = config, gateway, sink, may_tell, unix_s
        self._key = key
        self._homes: dict[str, _Home] = {}
        """By hash, those that were met last at the end."""
        self._left: dict[str, float] = {}
        """Endpoint to when it is to be left, where its sessions have been told."""
        self._purse = RetryBudget(0.0, config.told_per_s, unix_s())

    def __len__(self) -> int:
        return len(self._homes)

    def hashed(self, session: Named) -> str:
        """What the world knows it by: 128 bits of SHA-256, with the key where there is one."""
        said = "\0".join(session).encode()
        if self._key is None:
            return hashlib.sha256(said).hexdigest()[:_HEX]
        return hmac.digest(self._key.reveal().encode(), said, "sha256").hex()[:_HEX]

    def pick(self, picker: Picker, origin: str, class_: str, session: Named) -> Pick | None:
        """The endpoint for a request of a session: its home, or else the one that is its home from now on."""
        number, reason = self.hashed(session), None
        if (home := self._homes.get(number)) is not None:
            there = picker.home(origin, class_, home.endpoint)
            if isinstance(there, Pick):
                self._used(number, home)
                return there
            reason = there
        pick = picker.pick(origin, class_, session[2])
        if pick is not None:
            self._settle(number, pick.endpoint.name, session[0], class_, reason)
        return pick

    def moved(self, session: Named, class_: str, endpoint: str, reason: Reason) -> None:
        """A stream of the session went on at `endpoint`, and the session with it."""
        self._settle(self.hashed(session), endpoint, session[0], class_, reason)

    def heed(self, table: RoutingTable) -> None:
        """Tell of sessions in progress here by when they have to move, once for each deadline."""
        for described in table.endpoints:
            name, by_s = described.name, described.leave_by_s
            if by_s is None:
                self._left.pop(name, None)
            elif self._left.get(name) != by_s:
                self._left[name] = by_s
                self._tell_leaving(name, by_s)

    # -- what the others say ------------------------------------------------------------------------------------------

    async def follow(self, source: Source) -> None:
        """Learn from the topic until cancelled."""
        async for found in source.records():
            self.hear(found)

    def hear(self, found: Found) -> None:
        """Take over what a gateway, maybe this one, has told. What cannot be read says nothing."""
        try:
            said = _decoder.decode(found.value)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        home = self._homes.get(said.session)
        if said.move_by_s is not None or (home is not None and said.attempt < home.attempt):
            return
        if home is None or home.endpoint != said.home:
            signals.SESSION_HOMES.labels("learnt", "").inc()
        ours = said.gateway == self._gateway
        new = _Home(said.home, said.service, said.class_, said.attempt)
        new.told_s, new.ours = said.at_s, ours
        new.used_s = said.at_s if home is None else home.used_s
        self._keep(said.session, new)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _settle(self, number: str, endpoint: str, service: str, class_: str, reason: str | None) -> None:
        before = self._homes.get(number)
        if before is not None and before.endpoint == endpoint:
            self._used(number, before)
            return
        home = _Home(endpoint, service, class_, 1 if before is None else before.attempt + 1)
        signals.SESSION_HOMES.labels("begun" if before is None else "moved", reason or "").inc()
        self._used(number, home)

    def _used(self, number: str, home: _Home) -> None:
        home.used_s, home.ours = self._unix_s(), True
        self._keep(number, home)
        if home.used_s - home.told_s >= TELL_AGAIN_S and self._tell(number, home):
            home.told_s = home.used_s

    def _keep(self, number: str, home: _Home) -> None:
        self._homes.pop(number, None)
        self._homes[number] = home
        if len(self._homes) > self._config.most:
            del self._homes[next(iter(self._homes))]

    def _tell_leaving(self, endpoint: str, by_s: float) -> None:
        since_s = self._unix_s() - IN_PROGRESS_S
        for number, home in self._homes.items():
            if home.endpoint == endpoint and home.ours and home.used_s >= since_s:
                self._tell(number, home, by_s)

    def _tell(self, number: str, home: _Home, move_by_s: float | None = None) -> bool:
        """Whether it was told: not while the topic is away, nor more of them than the rest can bear."""
        now_s = self._unix_s()
        if not self._may_tell() or not self._purse.grant(now_s):
            return False
        self._sink.emit(
            Session(
                session=number,
                service=home.service,
                class_=home.class_,
                home=home.endpoint,
                attempt=home.attempt,
                gateway=self._gateway,
                at_s=now_s,
                move_by_s=move_by_s,
            ),
            now_s,
        )
        return True
