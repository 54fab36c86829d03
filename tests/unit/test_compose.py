"""compose.yaml and the Dockerfile as far as they can be checked without a container engine.

Is it a Compose file, do the names fit, do the commands exist, and is nothing let in that need not be?
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
from ruamel.yaml import YAML

from streams.settings import Settings
from tradewind.cli import app
from tradewind.flow import ROOMS
from tradewind.load.__main__ import _parser as load_parser
from tradewind.pretend.__main__ import _parser as pretend_parser

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = YAML(typ="safe").load(ROOT / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
IMAGE_OF_OURS = {name: service for name, service in SERVICES.items() if service.get("build")}
OURS = {name: service for name, service in IMAGE_OF_OURS.items() if "entrypoint" not in service}
PLAY = {name: service for name, service in SERVICES.items() if service.get("profiles") == ["play"]}
STAGES = DOCKERFILE.split("\nFROM ")[1:]
PROMETHEUS: dict[str, Any] = YAML(typ="safe").load(ROOT / "dashboards" / "prometheus.yml")
ours = pytest.mark.parametrize("name", OURS)


def parsed(args: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The path of the command, and its options and arguments as given. Fails as the command line would."""
    command: Any = typer.main.get_command(app)
    path: list[str] = []
    while hasattr(command, "commands"):
        assert args[0] in command.commands, f"{' '.join(args)}: choose one of {list(command.commands)}"
        path.append(args[0])
        command, args = command.commands[args[0]], args[1:]
    context = command.context_class(command, resilient_parsing=False)
    options, rest, _ = command.make_parser(context).parse_args(list(args))
    assert not rest, f"{' '.join(args)}: {rest} is too much"
    missing = [param.name for param in command.params if param.required and options.get(param.name) is None]
    assert not missing, f"{' '.join(args)}: {missing} is missing"
    return path, options


def mounts(service: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(source, target, mode) of each volume; what stands in for a variable that is not set is taken."""
    for volume in service.get("volumes", []):
        plain = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume)
        source, target, mode, *_ = *plain.split(":"), "rw"
        yield source, target, mode


def published() -> Iterator[str]:
    for service in SERVICES.values():
        yield from service.get("ports", [])


def test_the_roles_of_the_loop_are_there() -> None:
    wanted = {"kafka", "topics", "fleet", "streams", "forecasting", "router", "gateway", "prometheus", "grafana"}
    assert {name for name, service in SERVICES.items() if not service.get("profiles")} == wanted
    assert SERVICES["clickhouse"]["profiles"] == ["history"], "nothing writes to it yet"
    assert SERVICES["actuators"]["profiles"] == ["actuators"], "nobody's capacity is touched unasked"
    assert SERVICES.keys() == {*wanted, "clickhouse", "actuators", *PLAY}
    assert SERVICES["streams"]["scale"] == 2


def test_it_is_a_compose_file_by_the_schema_of_the_specification() -> None:
    schema = json.loads((ROOT / "tests" / "data" / "compose-spec.json").read_text("utf-8"))
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    wrong = {"services": {"kafka": {"image": "x", "port": ["1:1"]}}}
    assert list(validator.iter_errors(wrong)), "a schema that takes anything would prove nothing"


@ours
def test_every_command_is_one_of_ours_with_options_it_has(name: str) -> None:
    path, _ = parsed(OURS[name]["command"])
    assert path


def test_a_command_we_have_not_got_would_be_found() -> None:
    for wrong in (["topics", "make"], ["gateway", "--origin=eu", "--trust=x", "--port-of-call=1"], ["worker"]):
        with pytest.raises(Exception, match=r"choose one of|No such option|is missing"):
            parsed(wrong)


def test_every_room_has_a_worker() -> None:
    commands = [parsed(service["command"]) for service in OURS.values()]
    rooms = [options["room"] for path, options in commands if path == ["worker"]]
    assert sorted(rooms) == sorted(ROOMS)


@ours
def test_settings_in_the_environment_are_known_and_valid(name: str) -> None:
    given = {key.removeprefix("TRADEWIND_").lower(): v for key, v in OURS[name]["environment"].items()}
    assert given.keys() <= Settings.model_fields.keys()
    assert Settings(**given).bootstrap_servers in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]


def test_ports_are_published_on_loopback_only_and_each_once() -> None:
    ports = list(published())
    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)
    outside = [port.split(":")[1] for port in ports]
    assert len(outside) == len(set(outside))
    assert not any(service.get("privileged") for service in SERVICES.values())
    modes = {name: service["network_mode"] for name, service in SERVICES.items() if "network_mode" in service}
    assert set(modes.values()) == {"service:gateway"}
    assert modes.keys() <= PLAY.keys()


def test_no_secret_is_written_down() -> None:
    secret = re.compile(r"passw|secret|token|credential|private|api_?key|sasl_jaas", re.IGNORECASE)
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            assert not secret.search(key), f"{name}: {key}"
            assert not re.search(r"://[^/]*:[^/]*@", str(value)), f"{name}: {key}"
    assert "BEGIN" not in DOCKERFILE
    assert not secret.search(DOCKERFILE.replace("its private one", ""))


def test_volumes_that_are_used_are_declared_and_those_declared_are_used() -> None:
    used = {source for service in SERVICES.values() for source, _, _ in mounts(service) if not source.startswith(".")}
    assert used == COMPOSE["volumes"].keys()


def test_files_that_are_mounted_exist_and_are_mounted_read_only() -> None:
    files = [(source, mode) for s in SERVICES.values() for source, _, mode in mounts(s) if source.startswith(".")]
    assert len(files) == 6
    for source, mode in files:
        assert (ROOT / source).exists(), source
        assert mode == "ro", source


def test_services_that_are_waited_for_exist_and_can_be_what_is_waited_for() -> None:
    for service in SERVICES.values():
        after = service.get("depends_on", {})
        assert set(after) <= SERVICES.keys()
        for name, wait in after.items() if isinstance(after, dict) else ():
            if wait["condition"] == "service_healthy":
                assert SERVICES[name]["healthcheck"]["test"]
            else:
                assert wait["condition"] == "service_completed_successfully"
                assert SERVICES[name]["restart"].startswith("on-failure"), "it would never be completed"


def test_images_have_a_version_each() -> None:
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[\w./-]+:(v?\d+\.\d+\.\d+|local)", service["image"]), name


def test_the_gateway_reads_the_public_key_that_the_router_writes_and_runs_as_somebody_else() -> None:
    _, router = parsed(SERVICES["router"]["command"])
    _, gateway = parsed(SERVICES["gateway"]["command"])
    (key,) = router["key"]
    assert gateway["trust"] == [f"{key}.pub"]
    places = {name: {target: (source, mode) for source, target, mode in mounts(SERVICES[name])} for name in OURS}
    folder = str(Path(key).parent)
    assert places["router"][folder] == ("router-key", "rw")
    assert places["gateway"][folder] == ("router-key", "ro")
    assert "user" not in SERVICES["router"]
    uid = SERVICES["gateway"]["user"].split(":")[0]
    assert f"--uid {uid} " in DOCKERFILE
    assert SERVICES["gateway"]["environment"]["TRADEWIND_STATE_DIR"] in places["gateway"]


def test_what_a_service_writes_to_is_a_volume_because_all_else_is_read_only() -> None:
    assert all(service["read_only"] for service in IMAGE_OF_OURS.values())
    (*_, stands_in) = re.findall(r"^WORKDIR (\S+)", DOCKERFILE, re.MULTILINE)
    assert all(stands_in in service["tmpfs"] for service in IMAGE_OF_OURS.values()), "Faust makes a folder there"
    assert {name for name, service in SERVICES.items() if not service.get("read_only")} == {"kafka", "clickhouse"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_has_bounds_and_no_rights_it_could_do_without(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["pids_limit"]
    assert name == "clickhouse" or "cap_add" not in service


def test_what_goes_on_says_whether_it_is_well() -> None:
    lasting = {name for name, service in SERVICES.items() if service["restart"] == "unless-stopped"}
    assert lasting - PLAY.keys() == SERVICES.keys() - PLAY.keys() - {"topics", "fleet"}
    assert all(SERVICES[name]["healthcheck"]["test"] for name in lasting - PLAY.keys())


def test_the_pretend_endpoints_are_those_of_the_example_fleet_and_the_load_asks_for_its_service() -> None:
    fleet = YAML(typ="safe").load(ROOT / "examples" / "tradewind.yaml")
    (service,) = fleet["services"]
    wanted = {one["name"]: int(one["url"].rsplit(":", 1)[1]) for one in fleet["endpoints"]}
    endpoints = {name: one for name, one in PLAY.items() if one["entrypoint"][-1] == "tradewind.pretend"}
    given = [pretend_parser().parse_args(one["command"]) for one in endpoints.values()]
    assert {one.name: one.port for one in given} == wanted
    assert endpoints.keys() == wanted.keys()
    assert {model for one in given for model in one.models} == {service["name"]}
    load = load_parser().parse_args(PLAY["load"]["command"])
    assert load.model == service["name"]
    assert load.gateway == "http://gateway:8080"


def test_prometheus_asks_every_role_where_it_answers() -> None:
    asked: dict[str, str] = {}
    for job in PROMETHEUS["scrape_configs"]:
        for static in job.get("static_configs", []):
            asked |= dict(target.split(":") for target in static["targets"])
        for lookup in job.get("dns_sd_configs", []):
            asked |= dict.fromkeys(lookup["names"], str(lookup["port"]))
    roles = {name: parsed(s["command"]) for name, s in OURS.items() if s["command"][0] in ("worker", "gateway")}
    assert asked.keys() == roles.keys()
    for name, (path, options) in roles.items():
        assert asked[name] == str(options.get("port") or default(path[-1], "port")), name
        assert f"127.0.0.1:{asked[name]}/readyz" in OURS[name]["healthcheck"]["test"][-1]


def default(command: str, option: str) -> Any:
    commands: Any = typer.main.get_command(app)
    return next(param.default for param in commands.commands[command].params if param.name == option)


def test_the_example_fleet_has_the_origin_the_gateway_is_at() -> None:
    _, gateway = parsed(SERVICES["gateway"]["command"])
    fleet = YAML(typ="safe").load(ROOT / "examples" / "tradewind.yaml")
    assert gateway["origin"] in {origin["name"] for origin in fleet["origins"]}


def test_the_image_is_slim_checks_hashes_and_ends_as_a_user_without_rights() -> None:
    bases = [stage.split()[0] for stage in STAGES]
    assert len(bases) == 2
    assert len(set(bases)) == 1, "a library of one base under a Python of another"
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", bases[0])
    build, final = STAGES
    assert "pip download --require-hashes" in build
    assert all("--no-index" in line for line in build.splitlines() if "pip install" in line), "else it is unchecked"
    assert "pip" not in final
    lines = final.splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER tradewind"]
    assert lines.index("USER tradewind") < lines.index('ENTRYPOINT ["tradewind"]')


def test_the_image_says_whether_it_is_well() -> None:
    (words,) = re.findall(r"^HEALTHCHECK .*\\\n  CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    *_, code = json.loads(words)
    compile(code, "HEALTHCHECK", "exec")
    assert "/healthz" in code
    port = re.search(r"^ENV HEALTH_PORT=(\d+)$", DOCKERFILE, re.MULTILINE)
    assert port
    assert port[1] == str(default("worker", "port"))


def test_the_builder_is_handed_what_the_dockerfile_copies_and_nothing_else() -> None:
    copied = {
        part.removeprefix("./") for line in DOCKERFILE.splitlines() if re.match(r"COPY (?!--from)", line)
        for part in line.split()[1:-1]
    }  # fmt: skip
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)
