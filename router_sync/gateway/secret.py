"""What nobody is to read: values that never show themselves, and references to where they are kept.

credential: {file: /run/secrets/openai}      # read at start, and again when the file changes
credential: {env: OPENAI_API_KEY}            # read at start
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, NoReturn

import msgspec
from msgspec import Meta

from streams.contract.errors import BadSetting

_LONGEST: Final = 16 << 10
_HIDDEN: Final = "***"


class Secret:
    """A value that says *** wherever it is printed; only `reveal` gives it away."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return _HIDDEN

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        return _HIDDEN

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written down")


class Reference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a secret is kept: a file, or an environment variable. Exactly one of them."""

    file: Path | None = None
    env: Annotated[str, Meta(pattern=r"^[A-Z_][A-Z0-9_]*$(?!\n)")] | None = None

    def __post_init__(self) -> None:
        """Refuse none, and both."""
        if (self.file is None) == (self.env is None):
            raise ValueError("give one of {file: PATH} and {env: VARIABLE}")


def read(reference: Reference, environ: Mapping[str, str], field: str, place: str = "gateway") -> Secret:
    """The secret, without white space around it. Raises BadSetting with `field` and the remedy, never with the value.

    `place` is the section that refers to it.
    It has to be one line of printable ASCII, of at most 16 KiB, because it travels in a header.
    """
    if reference.file is not None:
        value = _of_file(reference.file, field, place)
        where, name = f"{field}.file", str(reference.file)
    else:
        name = str(reference.env)
        value, where = environ.get(name, ""), f"{field}.env"
    value = value.strip()
    if not value:
        remedy = "Write the secret into the file." if reference.file else f"Set the variable {name} to the secret."
        raise BadSetting(place, where, name, f"It holds nothing. {remedy}")
    if len(value) > _LONGEST or not (value.isascii() and value.isprintable()):
        raise BadSetting(place, where, name, "It has to hold one line of printable ASCII, the secret alone.")
    return Secret(value)


def _of_file(path: Path, field: str, place: str) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_LONGEST + 2)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise BadSetting(place, f"{field}.file", str(path), f"{why}: name a file that holds the secret.") from None
