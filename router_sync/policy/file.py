"""Policies as people write them: in `policies:` of tradewind.yaml by name, by path or in place, or a file by itself.

    policies:
      - gdpr                      # shipped with Tradewind: router_sync/policies/gdpr.yaml
      - ./ours.yaml               # beside this file
      - name: acme                # or here
        lists: {dach: [DE, AT, CH]}
        rules:
          - id: stays-home
            when: {tenant: [acme]}
            require: {country: [$dach]}

A list that the same policy declares may be named as $list wherever a value may stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from router_sync.policy.sound import unsound
from router_sync.reading import BadFleet, Reader, fields_of, plain, text_of, told, tree_of
from streams.contract.records import Policy, RequestFact, Rule, TargetFact, Values

SHIPPED: Final = Path(__file__).parent.parent / "policies"
BEGIN: Final = "name, default and rules, as in `tradewind policy show gdpr`"
REQUEST_FACTS: Final[tuple[str, ...]] = get_args(RequestFact)
TARGET_FACTS: Final[tuple[str, ...]] = get_args(TargetFact)
ASKS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("when", "unless"), REQUEST_FACTS),
    **dict.fromkeys(("require", "deny", "allow", "prefer"), TARGET_FACTS),
}
"""Fields of a rule to the facts that they may ask for."""
_ENDINGS: Final = (".yaml", ".yml", ".json")
Lists = Mapping[str, tuple[str, ...]]


def shipped() -> tuple[str, ...]:
    """The names of the policies that come with Tradewind."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def path_of(name: str, folder: Path) -> Path:
    """Where the policy called `name` is: a shipped one, or a file that starts at `folder`."""
    if "/" in name or name.endswith(_ENDINGS):
        return folder / name
    return SHIPPED / f"{name}.yaml"


def load(name: str, folder: Path = Path()) -> Policy:
    """The policy `name`. Raises BadFleet with all that is wrong with it."""
    path = path_of(name, folder)
    reader = Reader(str(path))
    policy = read(path, reader)
    if policy is None or reader.problems:
        raise BadFleet(reader.name, reader.problems)
    return policy


def read(path: Path, reader: Reader, at: str = "") -> Policy | None:
    """The policy in the file `path`, which is called like it; None: `reader`, which is of that file, says why.

    Raises BadFleet when it is no YAML.
    """
    return policy_in(tree_of(text_of(path), reader.name, BEGIN), reader, at, path.stem)


def section(tree: CommentedMap, reader: Reader) -> tuple[Policy, ...]:
    """The policies in `policies:` of the file that `reader` reads; what is wrong with them is noted."""
    if "policies" not in tree:
        return ()
    given = tree["policies"]
    reader.lines["policies"] = tree.lc.data["policies"][0] + 1
    if not isinstance(given, CommentedSeq) or not given:
        reader.wrong("policies", plain(given), "List at least one, by name, by path, or in place; or take it away.")
        return ()
    for n in range(len(given)):
        reader.lines[f"policies[{n}]"] = given.lc.data[n][0] + 1
    made = [_entry(item, f"policies[{n}]", reader) for n, item in enumerate(given)]
    return tuple(policy for policy in made if policy is not None)


def _entry(item: Any, at: str, reader: Reader) -> Policy | None:
    if isinstance(item, CommentedMap):
        return policy_in(item, reader, at)
    if not isinstance(item, str) or not item:
        reader.wrong(at, plain(item), f"Name one of {', '.join(shipped())}, a path like ./ours.yaml, or write it here.")
        return None
    path = path_of(item, Path(reader.name).parent)
    if not path.is_file():
        known = f"Shipped are {', '.join(shipped())}; a path begins with ./"
        reader.wrong(at, str(item), f"There is no {path}." if path.parent != SHIPPED else f"{known}.")
        return None
    other = Reader(str(path))
    try:
        return read(path, other, at)
    except BadFleet as bad:
        other.problems.extend(bad.problems)
        return None
    finally:
        reader.takes(other)


def policy_in(tree: CommentedMap, reader: Reader, at: str = "", name: str = "") -> Policy | None:
    """The policy that `tree` is, called `name` unless it says otherwise; None: the reader knows why."""
    before, fields = len(reader.problems), fields_of(Policy)
    reader.known(tree, at, (*fields, "lists", "cases"))
    said: dict[str, Any] = {"name": name} if name else {}
    for field in ("name", "default"):
        if field in tree:
            said[field] = reader.value(tree, at, fields[field])
    if "name" not in said:
        reader.wrong(_below(at, "name"), None, "Add it: a name.")
    said["rules"] = tuple(_rules(tree, reader, at, _lists(tree, reader, at)))
    if len(reader.problems) > before:
        return None
    policy = Policy(**said)
    for path, value, remedy in unsound(policy):
        reader.wrong(_below(at, path), value, remedy)
    return policy if len(reader.problems) == before else None


def _below(at: str, field: str) -> str:
    return f"{at}.{field}" if at else field


def _lists(tree: CommentedMap, reader: Reader, at: str) -> Lists:
    """Lists by name; one may be made of those above it."""
    found: dict[str, tuple[str, ...]] = {}
    path, given = _below(at, "lists"), tree.get("lists")
    if "lists" in tree and not isinstance(given, CommentedMap):
        reader.wrong(path, plain(given), "Write a mapping of names to lists, like `dach: [DE, AT, CH]`.")
        return found
    reader.known(given or CommentedMap(), path, list(given or ()))
    for name, values in (given or {}).items():
        found[str(name)] = _values(values, reader, f"{path}.{name}", found)
    return found


def _rules(tree: CommentedMap, reader: Reader, at: str, lists: Lists) -> Iterator[Rule]:
    path, given = _below(at, "rules"), tree.get("rules")
    if not isinstance(given, CommentedSeq) or not given:
        reader.wrong(path, plain(given), "List at least one rule, each with an id and one effect.")
        return
    for n, item in enumerate(given):
        reader.lines[f"{path}[{n}]"] = given.lc.data[n][0] + 1
        rule = _rule(item, reader, f"{path}[{n}]", lists)
        if rule is not None:
            yield rule


def _rule(item: Any, reader: Reader, at: str, lists: Lists) -> Rule | None:
    fields, before = fields_of(Rule), len(reader.problems)
    if not isinstance(item, CommentedMap):
        reader.wrong(at, plain(item), "Write a mapping with an id and one effect: require, deny, allow, ...")
        return None
    reader.known(item, at, tuple(fields))
    if "id" not in item:
        reader.wrong(f"{at}.id", None, "Add it: a name that decisions refer to.")
    said: dict[str, Any] = {
        field: _clause(item[field], reader, f"{at}.{field}", lists) if field in ASKS else reader.value(item, at, info)
        for field, info in fields.items()
        if field in item
    }
    return Rule(**said) if len(reader.problems) == before else None


def _clause(given: Any, reader: Reader, at: str, lists: Lists) -> dict[str, tuple[str, ...]]:
    """Facts with the values that meet them."""
    if not isinstance(given, CommentedMap) or not given:
        reader.wrong(at, plain(given), "Write a mapping of facts to lists, like {country: [DE, FR]}; or take it away.")
        return {}
    reader.known(given, at, ASKS[at.rpartition(".")[2]])
    return {str(fact): _values(values, reader, f"{at}.{fact}", lists) for fact, values in given.items()}


def _values(given: Any, reader: Reader, at: str, lists: Lists) -> tuple[str, ...]:
    """A list of texts, or one; names of lists are replaced by what they hold."""
    found, before = list[str](), len(reader.problems)
    for item in given if isinstance(given, CommentedSeq) else [given]:
        if isinstance(item, str) and item.startswith("$"):
            if item[1:] not in lists:
                known = ", ".join(f"${name}" for name in lists) or "none"
                reader.wrong(at, str(item), f"Declare it above under `lists` of this policy; known are {known}.")
            found.extend(lists.get(item[1:], ()))
        elif isinstance(item, str) and item:
            found.append(str(item))
        else:
            reader.wrong(at, plain(item), "Write texts: a number or another value in quotes, and none that is empty.")
    values = tuple(dict.fromkeys(found))
    try:
        return msgspec.convert(values, Values)
    except msgspec.ValidationError as error:
        if len(reader.problems) == before:
            reader.wrong(at, plain(given), told("values", values, error))
        return ()
