"""Whom a gateway trusts and who trusts it: routers, callers, endpoints. Read at start; what may change is watched."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping

from router_sync.gateway.access import Access
from router_sync.gateway.claims import Tokens
from router_sync.gateway.config import GatewayConfig
from router_sync.gateway.issuer import IssuerKeys
from router_sync.gateway.secret import read
from router_sync.gateway.tls import server_context
from router_sync.gateway.upstream import Upstreams
from router_sync.gateway.watch import Watch
from router_sync.keys import load_trust


class Trusted:
    """`routers`, `access`, `upstreams` and `tls` as the config says. Raises BadSetting for what cannot be used."""

    def __init__(self, config: GatewayConfig, environ: Mapping[str, str], now_s: Callable[[], float]) -> None:
        self.watch = Watch(config.watch_every_s)
        self.routers = load_trust(*config.trust)
        self._issuer = IssuerKeys(config.jwt, self.watch) if config.jwt else None
        tokens = Tokens(config.jwt, self._issuer, now_s) if config.jwt and self._issuer else None
        certified = config.tls is not None and config.tls.client_ca_file is not None
        self.access = Access(anonymous=config.anonymous, tokens=tokens, certified=certified)
        if (keys := config.keys) is not None:
            self.watch.add("keys", [keys], lambda: self.access.load(keys))
            self.access.load(keys)
        self.upstreams = Upstreams(config.upstreams, environ, self.watch)
        key = config.sessions.key
        self.session_key = read(key, environ, "sessions.key") if key is not None else None
        self.tls: ssl.SSLContext | None = server_context(config.tls, self.watch) if config.tls else None
        self._only_tokens = config.keys is None and not config.anonymous

    async def fetch(self) -> None:
        """Fetch the issuer's keys until cancelled, where they are to be fetched."""
        if self._issuer is not None:
            await self._issuer.run()

    def why_not(self) -> str | None:
        """Why nobody could be let in; None when somebody could."""
        if self._only_tokens and self._issuer is not None and self._issuer.empty:
            return "the keys of the token issuer are not here yet"
        return None
