"""A Kubernetes API as far as scaling needs it: objects, their scale, autoscalers; rights, versions, throttling.

What it refuses, and how: 401 without the token, 403 without the right, 404 for what is not there, 409 for a version
that is not the newest, 415 for a kind of patch that the resource does not take, 422 for replicas that are none, 429 on
demand.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.contract.stand_ins.listening import listening

TOKEN = "stand-in"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
BUILT_IN = frozenset({"apps", "autoscaling"})
KINDS = {"deployments": "Deployment", "statefulsets": "StatefulSet", "leaderworkersets": "LeaderWorkerSet"}
Key = tuple[str, str, str]
"""Namespace, plural, name."""


@dataclass
class Thing:
    """One object. Its replicas are ready as soon as they are wanted, unless `ready` says how many are."""

    group: str = "apps"
    version: int = 100
    replicas: int = 2
    ready: int | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    managers: list[str] = field(default_factory=list)

    def status(self) -> dict[str, int]:
        ready = self.replicas if self.ready is None else self.ready
        return {"replicas": self.replicas, **({"readyReplicas": ready} if ready else {})}


class Refused(Exception):
    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}


class StandIn:
    """`denied`: "verb resource" that are not granted. `busy`: answers of 429 still to give. `others`: changes by others
    that come between a read and a write of ours."""

    def __init__(self) -> None:
        self.things: dict[Key, Thing] = {}
        self.hpas: list[dict[str, Any]] = []
        self.scaled_objects: list[dict[str, Any]] | None = None
        """None: KEDA is not installed."""
        self.denied: set[str] = set()
        self.busy = 0
        self.others = 0
        self.asked: list[tuple[str, str, str]] = []
        """Method, path, query."""
        self.url = ""

    def add(self, name: str, plural: str = "deployments", namespace: str = "inference", **more: Any) -> Thing:
        thing = self.things[namespace, plural, name] = Thing(**more)
        return thing

    def kubeconfig(self, folder: Path, token: str = TOKEN) -> Path:
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": self.url}}],
            "users": [{"name": "us", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "us"}}],
        }  # fmt: skip
        path = folder / "kubeconfig"
        path.write_text(json.dumps(config))
        return path

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[StandIn]:
        async with listening(self._answer) as self.url:
            yield self

    # ------------------------------------------------------------ answers

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append((request.method, request.path, request.query_string))
        try:
            return web.json_response(await self._routed(request))
        except Refused as refused:
            status = {"kind": "Status", "status": "Failure", "code": refused.status, "message": str(refused)}
            return web.json_response(status, status=refused.status, headers=refused.headers)

    async def _routed(self, request: web.BaseRequest) -> Any:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "Unauthorized")
        if self.busy:
            self.busy -= 1
            raise Refused(429, "too many requests", Retry_After="7")
        _, apis, group, _, namespaces, namespace, plural, *rest = request.path.split("/")
        if (apis, namespaces) != ("apis", "namespaces"):
            raise Refused(404, "the server could not find the requested resource")
        verb = {"GET": "get" if rest else "list", "PATCH": "patch"}[request.method]
        resource = "/".join((plural, *rest[1:]))
        if f"{verb} {resource}" in self.denied:
            raise Refused(403, f'User "us" cannot {verb} resource "{resource}" in API group "{group}"')
        if not rest:
            return {"items": self._listed(plural)}
        thing = self.things.get((namespace, plural, rest[0]))
        if thing is None or thing.group != group:
            raise Refused(404, f'{plural}.{group} "{rest[0]}" not found')
        if verb == "patch":
            await self._patched(request, thing, scale=resource.endswith("/scale"))
        return self._scale(rest[0], thing) if resource.endswith("/scale") else self._object(rest[0], plural, thing)

    def _listed(self, plural: str) -> list[dict[str, Any]]:
        if plural == "horizontalpodautoscalers":
            return self.hpas
        if plural == "scaledobjects" and self.scaled_objects is not None:
            return self.scaled_objects
        raise Refused(404, "the server could not find the requested resource")

    async def _patched(self, request: web.BaseRequest, thing: Thing, *, scale: bool) -> None:
        takes = {MERGE, STRATEGIC} if thing.group in BUILT_IN else {MERGE}
        if request.content_type not in takes:
            raise Refused(415, f"the body of the request was in an unknown format: {request.content_type}")
        if (dry := request.query.get("dryRun", "All")) != "All":
            raise Refused(400, f"Invalid value: {dry!r}")
        patch = json.loads(await request.read())
        self._check(patch, thing, scale=scale)
        if "dryRun" in request.query:
            return
        thing.version += 1
        thing.managers.append(request.query.get("fieldManager", ""))
        thing.replicas = patch.get("spec", {}).get("replicas", thing.replicas)
        thing.annotations |= patch.get("metadata", {}).get("annotations", {})

    def _check(self, patch: dict[str, Any], thing: Thing, *, scale: bool) -> None:
        if self.others and scale:
            self.others -= 1
            thing.version += 1
        version = patch.get("metadata", {}).get("resourceVersion")
        if version is not None and version != str(thing.version):
            raise Refused(409, "the object has been modified; please apply your changes to the latest version")
        replicas = patch.get("spec", {}).get("replicas", 0)
        if not isinstance(replicas, int) or replicas < 0:
            raise Refused(422, f"spec.replicas: Invalid value: {replicas}: must be greater than or equal to 0")

    def _scale(self, name: str, thing: Thing) -> dict[str, Any]:
        return {
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {"name": name, "resourceVersion": str(thing.version)},
            "spec": {"replicas": thing.replicas} if thing.replicas else {},
            "status": {"replicas": thing.status()["replicas"], "selector": "app=vllm"},
        }  # fmt: skip

    def _object(self, name: str, plural: str, thing: Thing) -> dict[str, Any]:
        return {
            "kind": KINDS.get(plural, plural), "apiVersion": f"{thing.group}/v1",
            "metadata": {"name": name, "resourceVersion": str(thing.version), "annotations": thing.annotations},
            "spec": {"replicas": thing.replicas}, "status": thing.status(),
        }  # fmt: skip


def hpa(name: str, target: str, kind: str = "Deployment", api: str = "apps/v1") -> dict[str, Any]:
    """An HPA, and a ScaledObject as far as we read it."""
    reference = {"apiVersion": api, "kind": kind, "name": target}
    return {"metadata": {"name": name}, "spec": {"scaleTargetRef": reference}}
