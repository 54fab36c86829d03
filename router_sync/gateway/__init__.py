"""The reference gateway: an aiohttp reverse proxy that follows signed tables, fails over and reports what it sees.

    run(checked("gateway.yaml", {"origin": "eu", "trust": ["router.pub"], "anonymous": True}))

It speaks the OpenAI API, where the body's `model` names the service, and passes plain HTTP on below /services/NAME/; an
API key or a token says who calls, and with which class. Endpoints are reached over TLS and with credentials of its own.
"""

from router_sync.gateway.config import (
    Ceiling,
    Deadlines,
    GatewayConfig,
    Limits,
    Probing,
    Retries,
    Sessions,
    Tiers,
    checked,
    load_fields,
)
from router_sync.gateway.server import Gateway, examine, run, serve
from router_sync.gateway.sink import KafkaSink, ListSink, Sink

__all__ = [
    "Ceiling", "Deadlines", "Gateway", "GatewayConfig", "KafkaSink", "Limits", "ListSink", "Probing", "Retries",
    "Sessions", "Sink", "Tiers", "checked", "examine", "load_fields", "run", "serve",
]  # fmt: skip
