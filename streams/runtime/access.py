"""How one of ours gets at Kafka: where it is, over TLS or not, as whom. Every client of ours is made from here.

    AIOKafkaConsumer(**client_options(access), ...)

A password is never part of an `Access`, only the path of its file: it is read each time a client is made, so that a
new one is taken over with the next connection, and it is in no log, error or repr.
"""

from __future__ import annotations

import ssl
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import msgspec

from streams import signals
from streams.contract.errors import BadSetting

if TYPE_CHECKING:
    from streams.settings import Settings

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
SECURITY: Final = (
    "sasl_mechanism", "sasl_username", "sasl_password_file", "tls_ca_file", "tls_cert_file", "tls_key_file",
)  # fmt: skip
"""What stands beside the protocol, each after those it depends on."""
_SASL: Final = frozenset(SECURITY[:3])
_LOCAL: Final = frozenset({"localhost", "::1"})
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_LONGEST_PASSWORD: Final = 4096
_warned: set[tuple[str, ...]] = set()
"""What was warned of in this process; clients are made again and again."""


class Access(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where Kafka is and how one gets in. Fields that contradict each other are refused (ValueError)."""

    bootstrap_servers: str = "127.0.0.1:19092"
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism | None = None
    sasl_username: str | None = None
    sasl_password_file: Path | None = None
    tls_ca_file: Path | None = None
    """Certificates that servers' are checked against; None: those the machine trusts."""
    tls_cert_file: Path | None = None
    """The client's own certificate, with those between it and its CA."""
    tls_key_file: Path | None = None
    """Its key, not encrypted."""

    def __post_init__(self) -> None:
        said = msgspec.structs.asdict(self)
        for field in SECURITY:
            if says := wrong(field, said[field], said):
                raise ValueError(f"{field}: {says}")

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As `settings` say."""
        return cls(**{field: getattr(settings, field) for field in cls.__struct_fields__})

    @property
    def sasl(self) -> bool:
        """Whether one signs in with name and password."""
        return self.security_protocol.startswith("SASL")

    @property
    def encrypted(self) -> bool:
        """Whether what is said cannot be read on the way."""
        return self.security_protocol.endswith("SSL")

    @property
    def principal(self) -> str:
        """Who we are to the broker's authorizer, as ACLs name it where nobody mapped names: User:NAME."""
        if self.sasl:
            return f"User:{self.sasl_username}"
        return f"User:{_subject(self.tls_cert_file)}" if self.tls_cert_file else "User:ANONYMOUS"


def wrong(field: str, value: object, said: Mapping[str, Any]) -> str | None:
    """What is wrong with `field`, one of `SECURITY`, beside the others in `said`, and the remedy; None: nothing.

    >>> wrong("sasl_username", None, {"security_protocol": "SASL_SSL"})
    'SASL_SSL needs it: set it, or set security_protocol to SSL'
    """
    protocol = str(said.get("security_protocol", "PLAINTEXT"))
    if field in _SASL:
        return _wrong_sasl(protocol, value)
    if value is not None and not protocol.endswith("SSL"):
        over_tls = "SASL_SSL" if protocol.startswith("SASL") else "SSL"
        return f"{protocol} does not use it: set security_protocol to {over_tls}, or leave it out"
    if field == "tls_key_file" and (value is None) != (said.get("tls_cert_file") is None):
        lone = "tls_cert_file" if value is None else "tls_key_file"
        return f"A client's certificate and its key go together: give both, not {lone} alone"
    return None


def _wrong_sasl(protocol: str, value: object) -> str | None:
    if protocol.startswith("SASL") and value in (None, ""):
        return f"{protocol} needs it: set it, or set security_protocol to {protocol.removeprefix('SASL_')}"
    if not protocol.startswith("SASL") and value is not None:
        return f"{protocol} does not use it: set security_protocol to SASL_SSL, or leave it out"
    return None


def client_options(access: Access | Settings | str) -> dict[str, Any]:
    """Arguments of aiokafka's clients: bootstrap_servers and, where it applies, security. Plain servers will do too.

    The password is read now. Raises BadSetting when a file cannot be read or holds nothing of use. Warns once of a
    password that others may read.
    """
    access = resolved(access)
    options: dict[str, Any] = {"bootstrap_servers": access.bootstrap_servers}
    if access.security_protocol != "PLAINTEXT":
        options["security_protocol"] = access.security_protocol
    if access.encrypted:
        options["ssl_context"] = _tls(access)
    if access.sasl:
        options["sasl_mechanism"] = access.sasl_mechanism
        options["sasl_plain_username"] = access.sasl_username
        options["sasl_plain_password"] = _password(access)
    return options


def resolved(access: Access | Settings | str) -> Access:
    """The access behind it: of settings, or of servers that ask for nothing."""
    if isinstance(access, Access):
        return access
    return Access(bootstrap_servers=access) if isinstance(access, str) else Access.of(access)


def _tls(access: Access) -> ssl.SSLContext:
    """Server's certificate and name are checked; nothing below TLS 1.2."""
    try:
        context = ssl.create_default_context(cafile=access.tls_ca_file)
    except (OSError, ssl.SSLError) as error:
        raise _unreadable("tls_ca_file", access.tls_ca_file, error, "PEM certificates") from None
    if access.tls_cert_file and access.tls_key_file:
        try:
            # an empty password: one that is needed must be refused here, not asked for on a terminal
            context.load_cert_chain(access.tls_cert_file, access.tls_key_file, password="")
        except (OSError, ssl.SSLError, ValueError) as error:
            field = "tls_cert_file" if _holds(access.tls_key_file) else "tls_key_file"
            what = "a PEM certificate and one of its PEM key without a passphrase"
            raise _unreadable(field, getattr(access, field), error, what) from None
    return context


def _holds(path: Path) -> bool:
    """Whether there is a private key in it."""
    try:
        return b"PRIVATE KEY-----" in path.read_bytes()
    except OSError:
        return False


def _unreadable(field: str, path: Path | None, error: Exception, what: str) -> BadSetting:
    why = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
    return BadSetting("access to Kafka", field, str(path), f"{why}: give a readable file of {what}")


def _password(access: Access) -> str:
    """What the file says, without the newline that editors leave at its end."""
    path = access.sasl_password_file
    assert path is not None  # `wrong` has seen to it
    try:
        if path.stat().st_mode & _OTHERS:
            _once("kafka_password_file_open", path=str(path), remedy=f"others may read it: chmod 600 {path}")
        with path.open(encoding="utf-8") as file:
            password = file.read(_LONGEST_PASSWORD + 1).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable("sasl_password_file", path, error, "one line, the password") from None
    if not password or len(password) > _LONGEST_PASSWORD or "\n" in password:
        raise BadSetting("access to Kafka", "sasl_password_file", str(path), "It has to hold one line, the password")
    return password


def warn_if_open(access: Access | Settings | str) -> None:
    """Say once, in the log, that others can read what goes to Kafka; roles that stay do so when they start."""
    access = resolved(access)
    if access.encrypted or all(map(_is_local, access.bootstrap_servers.split(","))):
        return
    seen = (
        "can read and change it, and read the password"
        if access.sasl_mechanism == "PLAIN"
        else "can read and change it"
    )
    remedy = f"anybody on the way {seen}: set security_protocol to {'SASL_SSL' if access.sasl else 'SSL or SASL_SSL'}"
    _once("kafka_not_encrypted", bootstrap_servers=access.bootstrap_servers, remedy=remedy)


def _is_local(server: str) -> bool:
    """
    >>> [_is_local(server) for server in ("127.0.0.1:9092", "localhost", "[::1]:9092", "kafka:9092", "127.kafka.io:1")]
    [True, True, True, False, False]
    """
    host = server.strip().rpartition(":")[0] or server.strip()
    parts = host.split(".")
    return host.strip("[]") in _LOCAL or (len(parts) == 4 and parts[0] == "127" and all(p.isdecimal() for p in parts))


def _once(name: str, **fields: str) -> None:
    if (key := (name, *fields.values())) not in _warned:
        _warned.add(key)
        signals.event(name, "warning", **fields)


def _subject(cert: Path | None) -> str:
    """The subject of the client's certificate, as Kafka writes it."""
    from cryptography.x509 import load_pem_x509_certificate

    try:
        return load_pem_x509_certificate(cert.read_bytes()).subject.rfc4514_string() if cert else "ANONYMOUS"
    except (OSError, ValueError):
        return "ANONYMOUS"
