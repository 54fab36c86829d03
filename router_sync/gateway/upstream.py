"""How endpoints are reached: with which credential, over which TLS. Nothing of this stands in a table.

upstreams:
  gpu-eu-1: {credential: {file: /run/secrets/gpu-eu-1}}              # an endpoint's name goes first,
  azure:    {credential: {env: AZURE_KEY}, header: api-key, hosts: [us.azure.example]}   # then its provider's,
  default:  {ca_file: ca.pem, cert_file: us.pem, key_file: us.key}   # then this
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from router_sync.client import LocalEndpoint
from router_sync.gateway.secret import Reference, Secret, read
from router_sync.gateway.tls import client_context
from router_sync.gateway.watch import Watch
from streams.contract.errors import BadSetting

DEFAULT: Final = "default"
Host = Annotated[str, Meta(max_length=260, pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\s/:@\[\]]+)(:[0-9]{1,5})?$(?!\n)")]
HeaderName = Annotated[str, Meta(max_length=128, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$(?!\n)")]
_OURS: Final = frozenset(
    {
        "host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length",
        "accept-encoding", "expect",
    }
)  # fmt: skip
"""Headers that say how a request travels."""


class Upstream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one endpoint, or all of a provider, are reached."""

    credential: Reference | None = None
    hosts: tuple[Host, ...] = ()
    """`host` or `host:port`, and nothing else is sent to by this entry: not its credential, its headers nor its
    certificate. Without it they go wherever the fleet says the endpoint is."""
    header: HeaderName = "Authorization"
    """Carries the credential."""
    scheme: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_.~+-]*$(?!\n)")] | None = None
    """Before the credential; else Bearer in Authorization and nothing in other headers."""
    headers: dict[HeaderName, str | Reference] = {}
    """More headers, the same with each request; they go before the caller's."""
    pass_authorization: bool = False
    """Whether the caller's own Authorization, api-key or x-api-key goes on to the endpoint."""
    pass_facts: bool = True
    """Whether it is told class, tenant, data class, origin and so on (x-tradewind-...), which a guard there needs."""
    ca_file: Path | None = None
    """Certificates (PEM) that the endpoint's is checked against; else those the machine trusts."""
    cert_file: Path | None = None
    """Our own certificate (PEM), for an endpoint that asks for one."""
    key_file: Path | None = None
    server_name: Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[^\s/:]+$(?!\n)")] | None = None
    """The name its certificate has to have; else the host of its url."""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.credential is not None and self.pass_authorization:
            raise ValueError("pass_authorization and credential exclude each other: leave one of them out")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together: give both or none")
        for name in (self.header, *self.headers):
            if name.lower() in _OURS:
                raise ValueError(f"the header {name} says how a request travels and is the gateway's: leave it out")

    @property
    def prefix(self) -> str:
        """What stands before the credential, with its blank."""
        scheme = self.scheme
        if scheme is None:
            scheme = "Bearer" if self.header.lower() == "authorization" else ""
        return f"{scheme} " if scheme else ""

    def files(self) -> Iterator[Path]:
        """All it is read from."""
        references = (self.credential, *self.headers.values())
        yield from (said.file for said in references if isinstance(said, Reference) and said.file)
        yield from (path for path in (self.ca_file, self.cert_file, self.key_file) if path)


class Link:
    """How to reach one endpoint, as it is now. The same object stays when credentials change."""

    __slots__ = ("credential", "headers", "hosts", "name", "passes", "server_name", "tells", "tls")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.headers: tuple[tuple[str, Secret], ...] = ()
        self.credential = False
        """Whether one of ours is sent."""
        self.hosts: frozenset[str] = frozenset()
        """The only ones that may be sent to, in lower case; empty for any."""
        self.passes = False
        """Whether the caller's is."""
        self.tells = True
        """Whether it is told what law asks of a request."""
        self.tls: ssl.SSLContext | bool = True
        self.server_name: str | None = None

    def reaches(self, host: str, port: int | None) -> bool:
        """Whether requests may go there; `host` as in a url, in lower case."""
        return not self.hosts or host in self.hosts or f"{host}:{port}" in self.hosts

    def said(self) -> dict[str, str]:
        """The headers to set, readable: for the one who sends them and nobody else."""
        return {name: value.reveal() for name, value in self.headers}


_PLAIN: Final = Link()


class Upstreams:
    """Links by endpoint. Raises BadSetting when made of what cannot be read; later the old one stays in force."""

    def __init__(self, said: Mapping[str, Upstream], environ: Mapping[str, str], watch: Watch) -> None:
        self._links: dict[str, Link] = {}
        self._of: dict[tuple[str, str], Link] = {}
        self._environ = environ
        for name, upstream in said.items():
            link = self._links[name] = Link(name)
            watch.add(f"upstreams.{name}", upstream.files(), partial(self._load, upstream, link))
            self._load(upstream, link)

    def of(self, endpoint: LocalEndpoint) -> Link:
        """How `endpoint` is reached: by its name, its provider's, the default, or as the machine would."""
        who = (endpoint.name, endpoint.provider)
        link = self._of.get(who)
        if link is None:
            names = (*who, DEFAULT)
            link = self._of[who] = next((self._links[name] for name in names if name in self._links), _PLAIN)
        return link

    def unused(self, endpoints: Iterable[LocalEndpoint]) -> list[str]:
        """Entries that none of `endpoints` is reached by, sorted: their names may be misspelt."""
        named = {name for endpoint in endpoints for name in (endpoint.name, endpoint.provider)}
        return sorted(self._links.keys() - named - {DEFAULT})

    def unbound(self) -> list[str]:
        """Entries whose credential goes wherever the fleet says, sorted."""
        return sorted(name for name, link in self._links.items() if link.credential and not link.hosts)

    def _load(self, said: Upstream, link: Link) -> None:
        at = f"upstreams.{link.name}"
        headers = [(name, self._value(value, f"{at}.headers.{name}")) for name, value in said.headers.items()]
        if said.credential is not None:
            credential = read(said.credential, self._environ, f"{at}.credential")
            headers.append((said.header, Secret(said.prefix + credential.reveal())))
        if said.ca_file is not None or said.cert_file is not None:
            link.tls = client_context(at, said.ca_file, said.cert_file, said.key_file)
        link.headers, link.credential = tuple(headers), said.credential is not None
        link.passes, link.server_name = said.pass_authorization, said.server_name
        link.tells = said.pass_facts
        link.hosts = frozenset(host.lower() for host in said.hosts)

    def _value(self, said: str | Reference, field: str) -> Secret:
        if isinstance(said, Reference):
            return read(said, self._environ, field)
        if not (said.isascii() and said.isprintable()):
            raise BadSetting("gateway", field, "***", "It has to be one line of printable ASCII.")
        return Secret(said)
