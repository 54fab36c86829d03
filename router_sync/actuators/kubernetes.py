"""Kubernetes: sets the scale of a Deployment, StatefulSet, LeaderWorkerSet, or of whatever else has that sub-resource.

    - {pool: "onprem/*", kind: kubernetes, namespace: inference, name: "vllm-{zone}", most: 12, mode: act}

In the pod it is the pod's own service account; elsewhere a kubeconfig. The least rights, in the target's namespace:

    get, patch   deployments/scale                                  to set it
    get          deployments                                        to see who is ready; else pods that exist count
    list         horizontalpodautoscalers, scaledobjects.keda.sh    to step aside for them; else autoscalers: false
    patch        deployments                                        only for the note on the target of which plan set it

It steps aside where an HPA or a ScaledObject owns the target. What others change between our reading and writing is
read again (resourceVersion). A dry run asks the API server with dryRun=All: rights and admission are rehearsed too.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from router_sync.actuators.around import Around, Call, lacking, threads
from router_sync.actuators.dry_run import would
from router_sync.actuators.entry import Entry, Template, filled
from router_sync.actuators.protocol import Later, Receipt, Replicas
from streams.contract.errors import Refused, Stop
from streams.contract.records import CapacityPlan

Part = Annotated[str, Meta(max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$(?!\n)")]
KNOWN: Final[Mapping[str, tuple[str, str]]] = {
    "deployments": ("apps", "v1"),
    "statefulsets": ("apps", "v1"),
    "leaderworkersets": ("leaderworkerset.x-k8s.io", "v1"),
}
"""Resources whose group and version need not be said."""
ANNOTATION: Final = "tradewind/plan-id"
AUTOSCALERS: Final = (("autoscaling", "v2", "horizontalpodautoscalers"), ("keda.sh", "v1alpha1", "scaledobjects"))
CONFLICTS: Final = 5
"""Times that others may come between a read and a write of ours."""
ASIDE_S: Final = 60.0
_THREADS: Final = 8
_HOW: Final[Mapping[str, Any]] = {"field_manager": "tradewind", "_content_type": "application/merge-patch+json"}
"""A patch by us, of the one kind that custom resources take too."""
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_CONNECT_S: Final = 3.0


class ObjectEntry(Entry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One object of Kubernetes per pool, and the way to it."""

    kind: str
    namespace: Part | None = None
    name: Template | None = None
    """Of the object; {zone} and the like stand for the pool's."""
    resource: Part = "deployments"
    """In the plural, as in its URL."""
    group: Part | None = None
    """Of its API; known of deployments, statefulsets, leaderworkersets."""
    version: Part | None = None
    kubeconfig: Path | None = None
    """None: the pod's service account; outside a cluster, KUBECONFIG or ~/.kube/config."""
    context: Annotated[str, Meta(min_length=1, max_length=253)] | None = None
    """Of the kubeconfig; None: its current one."""

    def __post_init__(self) -> None:
        """Refuse half an object, and a resource whose API is not known."""
        if (self.namespace is None) != (self.name is None):
            raise ValueError("namespace and name go together: give both")
        if self.resource not in KNOWN and None in (self.group, self.version):
            raise ValueError(f"group and version of {self.resource} are not known: give both")

    @property
    def api(self) -> tuple[str, str]:
        """Group and version."""
        known = KNOWN.get(self.resource, ("", ""))
        return self.group or known[0], self.version or known[1]


class KubernetesEntry(ObjectEntry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sets the scale sub-resource of one object per pool."""

    kind: Literal["kubernetes"] = "kubernetes"
    namespace: Part
    name: Template
    """Of the object; {zone} and the like stand for the pool's."""
    autoscalers: bool = True
    """Whether to step aside where an HPA or a ScaledObject owns the object: then both have to be seen."""
    annotate: bool = True
    """Whether to note the plan on the object, where that is allowed."""


class Target(NamedTuple):
    """One object."""

    group: str
    version: str
    namespace: str
    resource: str
    name: str

    def __str__(self) -> str:
        return f"{self.resource} {self.namespace}/{self.name}"


# ---------------------------------------------------------------- pure: what the API says, and what it is told


def target_of(entry: ObjectEntry, pool: str) -> Target:
    """The object that `pool` is. Raises Stop where that can be none."""
    name = filled(entry.name or "", pool)
    if not _NAME.fullmatch(name):
        raise Stop(f"{name!r} cannot be the name of an object", "Use small letters, digits, - and . only")
    return Target(*entry.api, entry.namespace or "", entry.resource, name)


def of_object(found: Mapping[str, Any]) -> Replicas:
    """Replicas by the object itself, which knows who is ready."""
    want = int((found.get("spec") or {}).get("replicas", 1))
    ready = int((found.get("status") or {}).get("readyReplicas") or 0)
    return Replicas(ready=ready, starting=max(0, want - ready), want=want)


def of_scale(scale: Mapping[str, Any]) -> Replicas:
    """Replicas by its scale alone, which knows those that exist."""
    want = int((scale.get("spec") or {}).get("replicas") or 0)
    exist = int((scale.get("status") or {}).get("replicas") or 0)
    note = "who is ready cannot be seen (no right to get it), those that exist are counted"
    return Replicas(ready=min(want, exist), starting=max(0, want - exist), want=want, note=note)


def patch_of(scale: Mapping[str, Any], want: int) -> dict[str, Any]:
    """A merge patch that is refused when somebody has changed the object since `scale` was read."""
    return {"metadata": {"resourceVersion": scale["metadata"]["resourceVersion"]}, "spec": {"replicas": want}}


def owner_of(target: Target, autoscalers: Iterable[Mapping[str, Any]]) -> str | None:
    """Who of `autoscalers` scales `target`; a reference that does not say its kind means a Deployment.

    >>> hpa = {"metadata": {"name": "h"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "vllm"}}}
    >>> owner_of(Target("apps", "v1", "inference", "deployments", "vllm"), [hpa])
    'h'
    """
    for one in autoscalers:
        of = (one.get("spec") or {}).get("scaleTargetRef") or {}
        kind, group = of.get("kind") or "Deployment", (of.get("apiVersion") or "apps/v1").rpartition("/")[0]
        # by kind, where the target is named by its plural: Deployment, deployments; Proxy, proxies
        alike = target.resource.startswith(kind.lower()[:-1]) and group == target.group
        if alike and of.get("name") == target.name:
            return str((one.get("metadata") or {}).get("name"))
    return None


class Denied(Stop):
    """A right lacks."""


class NotThere(Stop):
    """There is no such object, or no such API."""


class Quicker(Exception):
    """Somebody has changed the object since we read it."""


def error_of(status: int, body: str | None, headers: Mapping[str, str], what: str) -> Exception:
    """The error in an answer to `what`, by what one can do about it."""
    said = _message(body)
    if status in (401, 403):
        return Denied(f"Kubernetes does not let us {what} ({status}: {said})", "Grant the right to our service account")
    if status in (404, 405):
        return NotThere(f"Kubernetes has nothing to {what} ({status}: {said})", "Correct namespace, name and resource")
    if status == 409:
        return Quicker(said)
    if status == 429 or status >= 500:
        return Later(f"Kubernetes answers {status} to {what}: {said}", _seconds(headers.get("Retry-After")))
    return Refused("want", what, f"Kubernetes answers {status}: {said}")


def _message(body: str | None) -> str:
    """What a Status object says, in short."""
    try:
        said = msgspec.json.decode(body or "")
        return str(said["message"])[:300]
    except (msgspec.DecodeError, KeyError, TypeError):
        return (body or "nothing said")[:300]


def _seconds(said: str | None) -> float | None:
    return float(said) if said is not None and said.isdecimal() else None


# ---------------------------------------------------------------- what asks the API


class Eyes:
    """Sees objects. `api` is a CustomObjectsApi, whose paths are those of built-in resources too."""

    def __init__(self, entry: ObjectEntry, api: Any, call: Call) -> None:
        self._where, self._api, self._call = entry, api, call

    async def observe(self, pool: str) -> Replicas | None:
        target = target_of(self._where, pool)
        try:
            return of_object(await self.ask(f"get {target}", "get_namespaced_custom_object", *target))
        except Denied:
            return of_scale(await self.scale(target))

    async def scale(self, target: Target) -> Mapping[str, Any]:
        """The scale sub-resource."""
        return dict(await self.ask(f"get the scale of {target}", "get_namespaced_custom_object_scale", *target))

    async def ask(self, what: str, method: str, *given: str, **how: Any) -> Any:
        """The answer of the API. Raises Later, Refused, Stop, or Quicker."""
        timeout = min(_CONNECT_S, self._where.deadline_s), self._where.deadline_s
        asked = partial(getattr(self._api, method), *given, **how, _request_timeout=timeout)
        return await self._call(_asked, what, asked)


class Kubernetes(Eyes):
    """The actuator."""

    def __init__(self, entry: KubernetesEntry, acts: bool, api: Any, call: Call) -> None:
        super().__init__(entry, api, call)
        self._entry, self._acts = entry, acts
        self._annotates = entry.annotate and acts

    async def apply(self, plan: CapacityPlan) -> Receipt:
        target = target_of(self._entry, plan.pool)
        if self._entry.autoscalers and (owner := await self._owner(target)) is not None:
            note = f"{target} is scaled by {owner}: take that away, or give the pool another kind of actuator"
            return Receipt(plan.want, taken=False, note=note, again_s=ASIDE_S)
        before = await self._patched(target, plan.want)
        if not self._acts:
            return would(plan.want, f"set {target} from {before} to")
        await self._annotated(target, plan.plan_id)
        return Receipt(plan.want, note=f"{target} set from {before} to {plan.want}")

    async def _patched(self, target: Target, want: int) -> int:
        """What the scale was before; it is read again where somebody else was quicker than we."""
        rehearse = {} if self._acts else {"dry_run": "All"}
        for _ in range(CONFLICTS):
            scale = await self.scale(target)
            how = {**_HOW, **rehearse, "body": patch_of(scale, want)}
            with contextlib.suppress(Quicker):
                await self.ask(f"patch the scale of {target}", "patch_namespaced_custom_object_scale", *target, **how)
                return of_scale(scale).want or 0
        raise Later(f"others have changed {target} {CONFLICTS} times between our reading and writing")

    async def _owner(self, target: Target) -> str | None:
        for group, version, plural in AUTOSCALERS:
            place = (group, version, target.namespace, plural)
            what = f"list {plural} in {target.namespace}, to step aside for them (or set autoscalers: false),"
            with contextlib.suppress(NotThere):  # KEDA is not installed
                found = await self.ask(what, "list_namespaced_custom_object", *place)
                if (owner := owner_of(target, found.get("items") or ())) is not None:
                    return f"the {plural[:-1]} {owner}"
        return None

    async def _annotated(self, target: Target, plan_id: str) -> None:
        """Which plan set it, on the object. That is a courtesy: the scale is set, whether it succeeds or not."""
        if not self._annotates:
            return
        how = {**_HOW, "body": {"metadata": {"annotations": {ANNOTATION: plan_id}}}}
        try:
            await self.ask(f"annotate {target}", "patch_namespaced_custom_object", *target, **how)
        except Denied:
            self._annotates = False
        except (Later, Quicker, Refused, Stop):
            pass


def _asked(what: str, ask: Callable[[], Any]) -> Any:
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return ask()
    except ApiException as error:
        raise error_of(int(error.status or 500), error.body, error.headers or {}, what) from None
    except HTTPError as error:
        raise Later(f"Kubernetes cannot be asked to {what} ({type(error).__name__})") from None


@contextlib.asynccontextmanager
async def opened(entry: KubernetesEntry, acts: bool, around: Around) -> AsyncIterator[Kubernetes]:
    """Raises Stop without the package, or without a way into a cluster."""
    async with cluster(entry, around) as (api, call):
        yield Kubernetes(entry, acts, api, call)


@contextlib.asynccontextmanager
async def cluster(entry: ObjectEntry, around: Around) -> AsyncIterator[tuple[Any, Call]]:
    """A CustomObjectsApi, and threads to call it in."""
    with threads("kubernetes", _THREADS) as call:
        api = await call(_api, entry, "KUBERNETES_SERVICE_HOST" in around.environ)
        try:
            yield api, call
        finally:
            api.api_client.close()


def _api(entry: ObjectEntry, in_cluster: bool) -> Any:
    try:
        from kubernetes import client, config
    except ImportError:
        raise lacking(entry.kind, "kubernetes", "kubernetes") from None
    made = client.Configuration()
    try:
        if entry.kubeconfig is None and entry.context is None and in_cluster:
            config.load_incluster_config(client_configuration=made)
        else:
            file = str(entry.kubeconfig) if entry.kubeconfig else None
            config.load_kube_config(file, entry.context, client_configuration=made, persist_config=False)
    except (config.ConfigException, OSError) as error:
        remedy = "Name a kubeconfig, or run it in a pod with a service account"
        raise Stop(f"There is no way into Kubernetes for {entry.pool} ({error})", remedy) from None
    made.retries = False  # the library would wait in its thread for as long as a server says
    return client.CustomObjectsApi(client.ApiClient(made))
