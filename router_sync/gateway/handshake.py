"""Why there is no connection to an endpoint: in few words for callers, and with the remedy for the log."""

from __future__ import annotations

import ipaddress
import ssl
from collections import Counter
from typing import Final

import aiohttp
from yarl import URL

from router_sync.gateway.upstream import DEFAULT, Link
from streams import signals

_REFUSES_US: Final = (
    "CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "CERTIFICATE_EXPIRED", "CERTIFICATE_REVOKED",
    "UNKNOWN_CA", "ACCESS_DENIED",
)  # fmt: skip
"""Alerts of an endpoint that does not like our certificate. With TLS 1.3 they come after the handshake."""


class Complaints:
    """Tells the log of what goes on being wrong: the first time, the second, the fourth, the eighth …"""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def tell(self, event: str, endpoint: str, reason: str, remedy: str) -> None:
        self._counts[event, endpoint] += 1
        count = self._counts[event, endpoint]
        if count.bit_count() == 1:
            signals.event(event, "warning", endpoint=endpoint, reason=reason, remedy=remedy, count=count)

    def tell_once(self, event: str, endpoint: str, reason: str, remedy: str) -> None:
        if not self._counts[event, endpoint]:
            self.tell(event, endpoint, reason, remedy)

    def ended(self, event: str, endpoint: str) -> None:
        """It is well again: what comes next is news."""
        del self._counts[event, endpoint]


def barred(url: URL, endpoint: str, link: Link, complaints: Complaints) -> str | None:
    """Why nothing may be sent to `url`, which is no host of its entry; None when it may. Either may go to the log.

    Where an endpoint is says the fleet; whoever writes that shall not get what is meant for another host.
    """
    if not (link.hosts or link.credential):
        return None
    bare = (url.raw_host or "").lower()
    host = f"[{bare}]" if ":" in bare else bare
    if not link.reaches(host, url.port):
        at = f"upstreams.{link.name}.hosts"
        remedy = f"add it to {at} if it is yours; else see who changed the endpoint's url in the fleet (fleet.v1)"
        complaints.tell("upstream_credential_withheld", endpoint, f"{host}:{url.port} is not in {at}", remedy)
        return f"{host} is no host that it may be sent to"
    if link.credential and url.scheme == "http" and not _is_loopback(bare):
        reason = f"the credential of upstreams.{link.name} goes to {host}:{url.port} unencrypted"
        complaints.tell_once("upstream_credential_in_clear", endpoint, reason, "give the endpoint an https url")
    return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def why(error: Exception, endpoint: str, link: Link, complaints: Complaints) -> str | None:
    """Why it could not be connected to; None when there was a connection. Trouble with TLS goes to the log too."""
    trouble = _tls_trouble(error)
    if trouble is not None:
        complaints.tell("upstream_tls_failed", endpoint, trouble, _remedy(trouble, link.name or endpoint))
        return f"no TLS with it: {trouble}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect: {error.os_error.strerror or type(error).__name__}"
    return None


def _tls_trouble(error: BaseException) -> str | None:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        said = error.certificate_error
        return str(getattr(said, "verify_message", "") or "its certificate is not for this name")
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return str(getattr(error.os_error, "reason", None) or "its handshake failed")
    return _refusal(error)


def _refusal(error: BaseException | None) -> str | None:
    """The alert by which the endpoint refused our certificate, wherever the library has put it."""
    while error is not None:
        if isinstance(error, ssl.SSLError) or (isinstance(error, aiohttp.ClientOSError) and error.args):
            says = str(getattr(error, "reason", None) or error)
            if any(alert in says.upper().replace(" ", "_") for alert in _REFUSES_US):
                return f"it refuses our certificate ({says[:100]})"
        error = error.__cause__
    return None


def _remedy(trouble: str, entry: str) -> str:
    entry = entry if entry != DEFAULT else f"{DEFAULT} (or of the endpoint)"
    at, said = f"upstreams.{entry}", trouble.lower()
    if "refuses our certificate" in said:
        return f"give a certificate it accepts: cert_file and key_file in {at}"
    if "mismatch" in said or "not valid for" in said or "for this name" in said:
        return f"correct the endpoint's url, or set server_name in {at} to a name of its certificate"
    if "expired" in said or "not yet valid" in said:
        return "renew the endpoint's certificate, and look at the clocks"
    if "self" in said or "issuer" in said or "verify" in said:
        return f"name the CA of its certificate in ca_file of {at}"
    if "handshake_failure" in said:  # with TLS 1.2 a missing certificate is called no other
        return f"if it asks for our certificate, give cert_file and key_file in {at}; else see which TLS it speaks"
    return "see whether it speaks TLS 1.2 or later at its url"
