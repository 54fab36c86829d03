"""TLS on both sides: contexts for endpoints, and the listener's own, whose certificate may change under it.

tls: {cert_file: gateway.pem, key_file: gateway.key, client_ca_file: callers-ca.pem}
"""

from __future__ import annotations

import ssl
from pathlib import Path

import msgspec

from router_sync.gateway.watch import Watch
from streams.contract.errors import BadSetting


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The listener speaks TLS 1.2 or later. A renewed certificate is taken over; a new `client_ca_file` at a start."""

    cert_file: Path
    """PEM, with those between it and its CA."""
    key_file: Path
    """PEM, not encrypted."""
    client_ca_file: Path | None = None
    """Callers need a certificate of one of these."""


def client_context(field: str, ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """For an endpoint: its certificate and name are checked. Raises BadSetting below `field`."""
    context = ssl.create_default_context(cafile=_certificates(f"{field}.ca_file", ca) if ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if cert is not None and key is not None:
        _load(context, field, cert, key)
    return context


def server_context(said: Tls, watch: Watch) -> ssl.SSLContext:
    """For the listener. Raises BadSetting; a certificate that is bad later is told, and the old one stays."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if said.client_ca_file is not None:
        context.load_verify_locations(_certificates("tls.client_ca_file", said.client_ca_file))
        context.verify_mode = ssl.CERT_REQUIRED

    def load() -> None:
        # tried first: a live context must not be left with a certificate that its key does not fit
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "tls", said.cert_file, said.key_file)
        _load(context, "tls", said.cert_file, said.key_file)

    watch.add("tls", (said.cert_file, said.key_file), load)
    load()
    return context


def _load(context: ssl.SSLContext, field: str, cert: Path, key: Path) -> None:
    for name, path in (("cert_file", cert), ("key_file", key)):
        _readable(f"{field}.{name}", path)
    try:
        # a password that is none: a key that needs one is refused, not asked for on a terminal
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or "they do not fit"
        remedy = f"{why}: give a PEM certificate and, in key_file, its PEM key without a passphrase."
        raise BadSetting("gateway", f"{field}.cert_file", str(cert), remedy) from None


def _certificates(field: str, path: Path) -> Path:
    """`path`, when there is a certificate in it."""
    _readable(field, path)
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError):
        raise BadSetting("gateway", field, str(path), "It holds no certificate: give a file of PEM.") from None
    return path


def _readable(field: str, path: Path) -> None:
    try:
        with path.open("rb"):
            return
    except OSError as error:
        remedy = f"{error.strerror or 'unreadable'}: name a readable PEM file."
        raise BadSetting("gateway", field, str(path), remedy) from None
