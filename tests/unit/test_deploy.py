"""deploy/: what can be known of units and manifests without a machine that runs them.

The commands are ours with options they have, names agree, nothing has rights it could do without, and there is time to
end in order. systemd-analyze and kubectl are asked too, where they are.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from ruamel.yaml import YAML

from router_sync import fleet as fleets
from router_sync.actuators.kubernetes import AUTOSCALERS
from router_sync.gateway.config import GatewayConfig
from streams.contract.rights import ROLE
from streams.settings import Settings
from tradewind import __version__
from tradewind.cli import app
from tradewind.flow import ROOMS

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
KUBERNETES = DEPLOY / "kubernetes"
KUSTOMIZATION: dict[str, Any] = YAML(typ="safe").load(KUBERNETES / "kustomization.yaml")
STOPS_S = 5.0
"""In which a worker ends after SIGTERM."""
PRODUCT = "/opt/tradewind/bin/tradewind"


def documents() -> Iterator[dict[str, Any]]:
    for name in KUSTOMIZATION["resources"]:
        yield from YAML(typ="safe").load_all(KUBERNETES / name)


DOCUMENTS = list(documents())
PODS = {one["metadata"]["name"]: one["spec"]["template"] for one in DOCUMENTS if one["kind"] in ("Deployment", "Job")}
DEPLOYMENTS = [one["metadata"]["name"] for one in DOCUMENTS if one["kind"] == "Deployment"]
every_pod = pytest.mark.parametrize("name", PODS)
every_deployment = pytest.mark.parametrize("name", DEPLOYMENTS)
every_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)


def parsed(args: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The path of the command and its options as given. Fails as the command line would."""
    command: Any = typer.main.get_command(app)
    path: list[str] = []
    while hasattr(command, "commands"):
        path.append(args[0])
        command, args = command.commands[args[0]], args[1:]
    options, rest, _ = command.make_parser(command.context_class(command)).parse_args(list(args))
    assert not rest, f"{rest} is too much"
    missing = [param.name for param in command.params if param.required and options.get(param.name) is None]
    assert not missing, f"{' '.join(path)}: {missing} is missing"
    return path, options


def container(name: str) -> dict[str, Any]:
    (one,) = PODS[name]["spec"]["containers"]
    return dict(one)


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [one for one in DOCUMENTS if one["kind"] == kind]


# -- Kubernetes -------------------------------------------------------------------------------------------------------


@every_pod
def test_every_command_is_one_of_ours_with_options_it_has(name: str) -> None:
    path, options = parsed(container(name)["args"])
    assert path
    assert options.get("config", "/etc/tradewind/tradewind.yaml") in ("/etc/tradewind/tradewind.yaml", None)


def test_every_room_has_workers_and_each_router_the_same_key() -> None:
    commands = {name: parsed(container(name)["args"]) for name in DEPLOYMENTS}
    rooms = {options["room"]: name for name, (path, options) in commands.items() if path == ["worker"]}
    assert rooms.keys() == set(ROOMS)
    (router,) = (one for one in of_kind("Deployment") if one["metadata"]["name"] == rooms["router"])
    assert router["spec"]["replicas"] == 2
    pod = router["spec"]["template"]["spec"]
    (copies,) = pod["initContainers"]
    *_, source, target = copies["command"]
    assert commands[rooms["router"]][1]["key"] == [target]
    assert mounted(copies, source) == "key", "a Secret's own files can be read by the group, which the router refuses"
    assert mounted(pod["containers"][0], target) == mounted(copies, target)
    assert copies["command"][1:3] == ["-m", "0600"]


def mounted(one: dict[str, Any], path: str) -> str | None:
    """Name of the volume that `path` lies on in the container."""
    found = [mount["name"] for mount in one["volumeMounts"] if Path(path).is_relative_to(mount["mountPath"])]
    return found[0] if found else None


@every_deployment
def test_whether_it_is_well_is_asked_where_it_answers(name: str) -> None:
    one = container(name)
    path, options = parsed(one["args"])
    ports = {port["name"]: port["containerPort"] for port in one["ports"]}
    (command,) = path
    asked = options.get("admin_port") or options.get("port") or default(command, "port")
    for probe, page in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert one[probe]["httpGet"]["path"] == page
        assert ports[one[probe]["httpGet"]["port"]] == int(asked)
    listens = options.get("host") or literals()["TRADEWIND_HOST"]
    assert listens == "0.0.0.0", "probes come from the node"


def default(command: str, option: str) -> Any:
    commands: Any = typer.main.get_command(app)
    return next(param.default for param in commands.commands[command].params if param.name == option)


@every_pod
def test_nothing_has_rights_or_resources_without_bound(name: str) -> None:
    pod = PODS[name]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] in (10001, 10002), "a user of the image"
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] == (name == "tradewind-actuators"), "who speaks to Kubernetes"
    assert not pod["enableServiceLinks"], "a Service tradewind-… would set TRADEWIND_… variables"
    assert not any(pod.get(field) for field in ("hostNetwork", "hostPID", "hostIPC"))
    for one in [*pod["containers"], *pod.get("initContainers", [])]:
        context = one["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert one["resources"]["requests"].keys() == {"cpu", "memory"}
        assert one["resources"]["limits"]["memory"]


@every_pod
def test_what_is_mounted_is_there_and_what_is_written_to_can_be(name: str) -> None:
    pod = PODS[name]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    everyone = [*pod["containers"], *pod.get("initContainers", [])]
    assert {mount["name"] for one in everyone for mount in one["volumeMounts"]} == volumes.keys()
    for mount in (mount for one in everyone for mount in one["volumeMounts"]):
        assert mount.get("readOnly", False) == ("emptyDir" not in volumes[mount["name"]])
    assert "emptyDir" in volumes[mounted(pod["containers"][0], "/tmp") or ""]
    for volume in volumes.values():
        if secret := volume.get("secret"):
            assert secret["defaultMode"] == 0o440, "not for others"


def test_a_gateway_sees_the_public_key_only_and_ends_after_its_requests() -> None:
    pod = PODS["tradewind-gateway"]["spec"]
    assert pod["securityContext"]["runAsUser"] != PODS["tradewind-router"]["spec"]["securityContext"]["runAsUser"]
    assert "router-key" not in str(pod)
    one = container("tradewind-gateway")
    _, options = parsed(one["args"])
    assert mounted(one, options["trust"][0]) == "trust"
    assert mounted(one, options["keys"]) == "keys"
    assert mounted(one, {var["name"]: var.get("value") for var in one["env"]}["TRADEWIND_STATE_DIR"]) == "state"
    waits_s = float(one["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > waits_s + drain_s() + STOPS_S


def drain_s() -> float:
    return float(next(field.default for field in msgspec.structs.fields(GatewayConfig) if field.name == "drain_s"))


@every_deployment
def test_there_is_time_to_end_in_order(name: str) -> None:
    assert PODS[name]["spec"]["terminationGracePeriodSeconds"] > 2 * STOPS_S


def literals() -> dict[str, str]:
    (said,) = (one["literals"] for one in KUSTOMIZATION["configMapGenerator"] if "literals" in one)
    return dict(literal.split("=", 1) for literal in said)


def test_settings_are_known_and_valid_and_hold_no_secret() -> None:
    given = {name.removeprefix("TRADEWIND_").lower(): value for name, value in literals().items()}
    assert given.keys() <= Settings.model_fields.keys()
    Settings(**given)  # type: ignore[arg-type]
    whole = "\n".join(path.read_text("utf-8") for path in KUBERNETES.glob("*.yaml"))
    commented = re.findall(r"# - TRADEWIND_(\w+)=(\S+)", whole)
    by_role = {"sasl_username": "the role's Secret says it"}
    Settings(**{**given, **by_role, **{name.lower(): value for name, value in commented}})  # type: ignore[arg-type]
    assert {name for name, _ in commented} >= {"SECURITY_PROTOCOL", "SASL_PASSWORD_FILE"}
    assert not of_kind("Secret")
    assert "BEGIN " not in whole


def test_names_that_are_referred_to_are_made_here_or_told_to_be_made() -> None:
    made = {one["name"] for one in KUSTOMIZATION["configMapGenerator"]}
    readme = (KUBERNETES / "README.md").read_text("utf-8")
    told = set(re.findall(r"create (?:secret generic|configmap) (\S+)", readme)) - {"tradewind-kafka-$role"}
    told |= {f"tradewind-kafka-{role}" for role in told_roles()}
    text = "\n".join((KUBERNETES / name).read_text("utf-8") for name in KUSTOMIZATION["resources"])
    used = set(re.findall(r"(?:configMap|configMapRef): \{name: (\S+?)\}|secretName: ([\w-]+)", text))
    assert {first or second for first, second in used} == made | told
    accounts = {one["metadata"]["name"] for one in of_kind("ServiceAccount")}
    assert {pod["spec"]["serviceAccountName"] for pod in PODS.values()} == accounts


def told_roles() -> list[str]:
    """For which the README makes a Secret each."""
    said = re.search(r"for role in ([\w ]+);", (KUBERNETES / "README.md").read_text("utf-8"))
    assert said is not None
    return said[1].split()


def test_kafka_knows_every_role_by_a_name_of_its_own() -> None:
    roles = []
    for name, template in PODS.items():
        (volume,) = (one for one in template["spec"]["volumes"] if one["name"] == "kafka")
        (user,) = (var for var in container(name)["env"] if var["name"] == "TRADEWIND_SASL_USERNAME")
        secret = volume["secret"]["secretName"]
        assert user["valueFrom"]["secretKeyRef"] == {"name": secret, "key": "username", "optional": True}
        assert volume["secret"]["optional"], "a Kafka that asks nobody needs none"
        roles.append(secret.removeprefix("tradewind-kafka-"))
    assert sorted(roles) == sorted(told_roles())
    assert set(roles) <= ROLE.keys()


def test_selectors_select_the_pods_they_mean() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in PODS.items()}
    for one in of_kind("Deployment"):
        assert one["spec"]["selector"]["matchLabels"] == labels[one["metadata"]["name"]]
    (service,) = of_kind("Service")
    assert service["spec"]["selector"] == labels["tradewind-gateway"]
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] in {one["name"] for one in container("tradewind-gateway")["ports"]}
    for budget in of_kind("PodDisruptionBudget"):
        assert budget["spec"]["selector"]["matchLabels"] == labels[budget["metadata"]["name"]]
    for policy in of_kind("NetworkPolicy"):
        chosen = policy["spec"]["podSelector"]["matchLabels"].items()
        assert any(chosen <= pod.items() for pod in labels.values())
        assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert not any("namespace" in one["metadata"] for one in DOCUMENTS)


def test_its_fleet_is_one_and_has_the_origin_of_its_gateway() -> None:
    fleet = fleets.load(KUBERNETES / "tradewind.yaml")
    _, options = parsed(container("tradewind-gateway")["args"])
    assert options["origin"] in {origin.name for origin in fleet.origins}
    (image,) = KUSTOMIZATION["images"]
    assert image["newTag"] == __version__


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not here")
def test_kustomize_renders_it() -> None:
    done = subprocess.run(["kubectl", "kustomize", KUBERNETES], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rendered = list(YAML(typ="safe").load_all(done.stdout))
    assert len(rendered) == len(DOCUMENTS) + len(KUSTOMIZATION["configMapGenerator"])
    images = set(re.findall(r"image: (\S+)", done.stdout))
    assert images == {f"tradewind:{__version__}"}


def test_actuators_may_set_the_scale_and_no_more_and_only_where_they_are_let() -> None:
    role, binding = YAML(typ="safe").load_all(KUBERNETES / "actuators-rbac.yaml")
    writes = [rule for rule in role["rules"] if set(rule["verbs"]) - {"get", "list"}]
    assert [(rule["resources"], rule["verbs"]) for rule in writes] == [(["deployments/scale"], ["get", "patch"])]
    read = {resource for rule in role["rules"] for resource in rule["resources"]}
    assert {plural for _, _, plural in AUTOSCALERS} <= read
    assert (role["kind"], binding["roleRef"]["name"]) == ("Role", role["metadata"]["name"]), "not of the whole cluster"
    (subject,) = binding["subjects"]
    assert subject["name"] == PODS["tradewind-actuators"]["spec"]["serviceAccountName"]
    assert "actuators-rbac.yaml" not in KUSTOMIZATION["resources"], "who runs Tradewind does not thereby let it scale"


# -- systemd ----------------------------------------------------------------------------------------------------------


def directives(unit: Path) -> dict[str, list[str]]:
    """Values of each directive, in order."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text("utf-8").replace("\\\n", "").splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def words(unit: Path, instance: str) -> list[str]:
    """What ExecStart runs for `instance`."""
    said = directives(unit)
    values = {
        name: value for line in said["Environment"] for name, _, value in (w.partition("=") for w in line.split())
    }
    values["CREDENTIALS_DIRECTORY"] = "/run/credentials"
    (command,) = said["ExecStart"]
    command = re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], command)
    return shlex.split(command.replace("%i", instance).replace("%l", "host"))


@every_unit
def test_what_a_unit_starts_is_a_command_of_ours(unit: Path) -> None:
    instances = ROOMS if "worker" in unit.name else ("europe",)
    for instance in instances:
        program, *args = words(unit, instance)
        assert program == PRODUCT
        path, options = parsed(args)
        assert options["config"] == "/etc/tradewind/tradewind.yaml"
        assert (options.get("room") or options.get("origin")) == instance
        assert path[0] in unit.name


@every_unit
def test_a_unit_gives_time_and_comes_back_after_a_failure_only(unit: Path) -> None:
    said = directives(unit)
    assert said["Restart"] == ["on-failure"]
    assert float(said["TimeoutStopSec"][0]) > drain_s() + STOPS_S
    assert said["DynamicUser"] == ["yes"]
    state = re.search(r"TRADEWIND_STATE_DIR=(\S+)", "\n".join(said["Environment"]))
    assert state
    assert [state[1]] == [f"/var/lib/{said['StateDirectory'][0]}"]


def test_the_settings_file_has_settings_of_ours_and_no_secret() -> None:
    text = (DEPLOY / "systemd" / "tradewind.env").read_text("utf-8")
    given = dict(re.findall(r"^#?TRADEWIND_(\w+)=(\S+)$", text, re.MULTILINE))
    assert {name.lower() for name in given} <= Settings.model_fields.keys()
    assert "SASL_PASSWORD" not in given


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
@every_unit
def test_systemd_takes_it_and_finds_little_exposed(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text("utf-8").replace(PRODUCT, "/bin/true"))
    verified = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, timeout=60)
    assert (verified.returncode, verified.stderr) == (0, "")
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=25", copy]
    judged = subprocess.run(words, capture_output=True, text=True, timeout=60)
    if "unrecognized option" in judged.stderr:
        pytest.skip("this systemd-analyze judges running units only")
    assert judged.returncode == 0, judged.stdout[-200:]
