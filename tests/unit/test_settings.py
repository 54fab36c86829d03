"""Settings: flags, then the environment, then defaults; a bad value names itself and what would be right."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from streams.contract.errors import BadSetting, Stop
from streams.settings import Settings, environment, load


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(environment()):
        if name.upper().startswith("TRADEWIND_"):
            monkeypatch.delenv(name)


def test_a_flag_beats_the_environment_and_the_environment_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().window_s == 60
    monkeypatch.setenv("TRADEWIND_WINDOW_S", "30")
    assert load().window_s == 30
    assert load(window_s=20).window_s == 20
    assert load(window_s=None).window_s == 30


BAD = [
    ("TRADEWIND_WINDOW_S", "4", "greater than or equal to 5"),
    ("TRADEWIND_WINDOW_S", "601", "less than or equal to 600"),
    ("TRADEWIND_WINDOW_S", "soon", "integer"),
    ("TRADEWIND_LATENESS_S", "nan", "less than or equal to 120"),
    ("TRADEWIND_LATENESS_S", "-1", "greater than or equal to 0"),
    ("TRADEWIND_TICK_S", "0", "greater than or equal to 0.05"),
    ("TRADEWIND_TABLE_HEARTBEAT_S", "11", "less than or equal to 10"),
    ("TRADEWIND_WIDE_PARTITIONS", "0", "greater than or equal to 1"),
    ("TRADEWIND_TOPIC_PREFIX", "a b", "pattern"),
    ("TRADEWIND_BOOTSTRAP_SERVERS", "", "at least 1 character"),
    ("TRADEWIND_BOOTSTRAP_SERVERS", "a:b", "HOST:PORT, several with commas"),
    ("TRADEWIND_BOOTSTRAP_SERVERS", "a:1,", "HOST:PORT, several with commas"),
    ("TRADEWIND_BOOTSTRAP_SERVERS", "a:1, b:2", "HOST:PORT, several with commas"),
    ("TRADEWIND_BOOTSTRAP_SERVERS", "a:65536", "HOST:PORT, several with commas"),
    ("TRADEWIND_BOOTSTRAP_SERVERS", "kafka://a:1", "HOST:PORT, several with commas"),
    ("TRADEWIND_BOOTSTRAP_SERVERS", "a:1/x", "HOST:PORT, several with commas"),
    ("TRADEWIND_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
]


@pytest.mark.parametrize(("variable", "value", "right"), BAD, ids=[f"{v}={x}" for v, x, _ in BAD])
def test_a_bad_variable_names_itself_its_value_and_what_would_be_right(
    variable: str, value: str, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadSetting) as caught:
        load()
    error = caught.value
    assert isinstance(error, Stop)
    assert error.where == f"environment {variable}"
    assert error.field == variable.removeprefix("TRADEWIND_").lower()
    assert error.value == value
    assert right in error.remedy
    assert variable in str(error)
    assert repr(value) in str(error)
    assert right in str(error)


@pytest.mark.parametrize(("flag", "value"), [("window_s", 0), ("tick_s", 1e9), ("log_level", "loud"), ("windows", 3)])
def test_a_bad_flag_is_called_a_flag(flag: str, value: Any) -> None:
    with pytest.raises(BadSetting, match=re.escape(f"flag: {flag} = {value!r} cannot be used")):
        load(**{flag: value})


@pytest.mark.parametrize("servers", ["kafka", "a:1,b.example:65535", "[::1]:9092", "10.0.0.1:9092", "my_kafka:9092"])
def test_brokers_are_named_by_host_and_port(servers: str) -> None:
    assert load(bootstrap_servers=servers).bootstrap_servers == servers


def test_settings_cannot_be_changed_after_the_start() -> None:
    settings = load(state_dir=Path("elsewhere"))
    with pytest.raises(ValidationError, match="frozen"):
        settings.window_s = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("flags", "right"),
    [
        ({"session_timeout_s": 2.0, "heartbeat_s": 1.0}, "below 1, half of session_timeout_s"),
        ({"session_timeout_s": 1.5}, "below 0.75, half of session_timeout_s"),
        ({"table_ttl_s": 12.0, "table_heartbeat_s": 6.0}, "below 6, half of table_ttl_s"),
        ({"table_ttl_s": 10.0}, "below 5, half of table_ttl_s"),
    ],
)
def test_two_heartbeats_fit_into_what_they_keep_alive(flags: dict[str, float], right: str) -> None:
    with pytest.raises(BadSetting, match=right):
        load(**flags)


def test_heartbeats_just_below_the_half_are_taken() -> None:
    settings = load(session_timeout_s=2.0, heartbeat_s=0.99, table_ttl_s=12.0, table_heartbeat_s=5.99)
    assert (settings.heartbeat_s, settings.table_heartbeat_s) == (0.99, 5.99)


def test_no_secret_is_taken_that_nothing_reads() -> None:
    assert "kafka_password" not in Settings.model_fields


def test_every_number_has_a_range() -> None:
    for name, field in Settings.model_fields.items():
        if field.annotation in (int, float):
            bounds = {type(m).__name__ for m in field.metadata}
            assert bounds >= {"Ge", "Le"}, name
