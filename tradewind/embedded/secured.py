"""An embedded broker that lets nobody in without a name: SASL_SSL, SCRAM-SHA-512, and Kafka's own authorizer.

For tests and rehearsals of what a production cluster asks for. Its controller listener is plain, on loopback; users'
passwords are words of the command that formats the data folder. So it is no place for real secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization

from streams.runtime.access import Access
from tradewind.ports import LOOPBACK

ADMIN: Final = "admin"
MECHANISM: Final = "SCRAM-SHA-512"
KEYSTORE, TRUSTSTORE, PASSWORD = "server.pem", "ca.pem", "admin.password"
_PRIVATE: Final = 0o600


@dataclass(frozen=True, slots=True)
class Secured:
    """Certificates of the broker as PEM, and who may sign in.

    `certificate` is for 127.0.0.1, with those between it and `ca`; `users` is name to password and holds `admin`, who
    may do anything. Nobody else may do anything until somebody with the right says so.
    """

    ca: str
    certificate: str
    key: str = field(repr=False)
    users: Mapping[str, str] = field(repr=False)

    def __post_init__(self) -> None:
        if ADMIN not in self.users:
            raise ValueError(f"users: {ADMIN!r} is missing, who makes topics and grants rights")

    def write(self, folder: Path) -> None:
        """Put the stores and the admin's password into `folder`, readable by nobody else."""
        texts = {
            KEYSTORE: f"{_pkcs8(self.key)}{self.certificate}",
            TRUSTSTORE: self.ca,
            PASSWORD: self.users[ADMIN],
        }
        for name, text in texts.items():
            (folder / name).touch(_PRIVATE)
            (folder / name).write_text(text)

    def access(self, folder: Path, bootstrap_servers: str) -> Access:
        """The admin's, with files that `write` made in `folder`."""
        return Access(
            bootstrap_servers=bootstrap_servers,
            security_protocol="SASL_SSL",
            sasl_mechanism=MECHANISM,
            sasl_username=ADMIN,
            sasl_password_file=folder / PASSWORD,
            tls_ca_file=folder / TRUSTSTORE,
        )

    def format_words(self) -> list[str]:
        """What the tool that formats the data folder is told of the users."""
        return [f"--add-scram={MECHANISM}=[name={name},password={word}]" for name, word in self.users.items()]


def _pkcs8(key: str) -> str:
    """The same key in the only form that Kafka reads."""
    known = serialization.load_pem_private_key(key.encode(), password=None)
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return known.private_bytes(serialization.Encoding.PEM, pkcs8, plain).decode()


def secured_properties(port: int, controller_port: int, secured: Secured) -> dict[str, str]:
    """What such a broker has in place of a plain one's settings, and beside them."""
    login = f'username="{ADMIN}" password="{secured.users[ADMIN]}"'
    return {
        "listeners": f"SASL_SSL://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"SASL_SSL://{LOOPBACK}:{port}",
        "inter.broker.listener.name": "SASL_SSL",
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": MECHANISM,
        "sasl.mechanism.inter.broker.protocol": MECHANISM,
        f"listener.name.sasl_ssl.{MECHANISM.lower()}.sasl.jaas.config": (
            f"org.apache.kafka.common.security.scram.ScramLoginModule required {login};"
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": KEYSTORE,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": TRUSTSTORE,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # ANONYMOUS is the broker on its own controller listener; on the clients' listener nobody is
        "super.users": f"User:{ADMIN};User:ANONYMOUS",
    }
