"""The reference gateway: an aiohttp reverse proxy that follows signed tables, fails over and reports what it sees.

    run(checked("gateway.yaml", {"origin": "eu", "trust": ["router.pub"], "anonymous": True}))

It speaks the OpenAI API; the body's `model` names the service, the API key the class.
"""

from router_sync.gateway.config import Deadlines, GatewayConfig, Limits, Probing, Retries, checked, load_fields
from router_sync.gateway.server import Gateway, run, serve
from router_sync.gateway.sink import KafkaSink, ListSink, Sink

__all__ = [
    "Deadlines", "Gateway", "GatewayConfig", "KafkaSink", "Limits", "ListSink", "Probing", "Retries", "Sink", "checked",
    "load_fields", "run", "serve",
]  # fmt: skip
