"""Files that outlive a process: those of an earlier version are read today, those of a newer one are refused plainly.

tests/golden/state/v1 holds bytes as the first version wrote them, before files said which format they have.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from multidict import CIMultiDict, CIMultiDictProxy

from router_sync.client import FileSource, Follower, Shelf
from router_sync.client.shelf import pack, unpack
from router_sync.gateway.access import load_access
from router_sync.keys import load_or_make, load_trust, public_path
from streams.contract.errors import Stop
from streams.contract.formats import TooNew
from tradewind.demo.folder import MARK as DEMO_MARK
from tradewind.demo.folder import fresh_folder
from tradewind.embedded.folder import MARK, claim

V1 = Path(__file__).parents[1] / "golden" / "state" / "v1"
KEY_DER = bytes.fromhex("302e020100300506032b657004220420") + bytes([1]) * 32
"""The golden router's key, PKCS8. In parts, so that nobody takes it for a secret that got lost."""
ISSUED_S = 1_800_000_000.0


def copied(name: str, to: Path) -> Path:
    return Path(shutil.copy(V1 / name, to))


def private_key(path: Path) -> Path:
    """The golden private key as the first version wrote it."""
    key = load_der_private_key(KEY_DER, password=None)
    assert isinstance(key, Ed25519PrivateKey)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return path


def test_a_kept_table_of_the_first_version_is_followed_after_an_upgrade(tmp_path: Path) -> None:
    copied("service.table", tmp_path / "chat.table")
    follower = Follower(load_trust(V1 / "router.key.pub"), Shelf(tmp_path))
    (table,) = follower.restore(ISSUED_S + 60)
    assert (table.service, table.epoch, table.version) == ("chat", 1_800_000_000, 2)
    assert table.routes


def test_what_is_kept_today_says_its_format_and_is_what_was_put(tmp_path: Path) -> None:
    found = unpack((V1 / "service.table").read_bytes())
    assert json.loads(pack(found))["format"] == 1
    assert unpack(pack(found)) == found


def test_a_kept_table_of_a_newer_version_is_left_out_with_a_plain_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newer = tmp_path / "chat.table"
    newer.write_text('{"format": 2, "key": {"another": "shape"}}')
    with caplog.at_level("WARNING", logger="tradewind"):
        assert list(Shelf(tmp_path).all()) == []
    (said,) = [record.fields for record in caplog.records]  # type: ignore[attr-defined]
    assert said["file"] == str(newer)
    assert "is of format 2, written by a newer Tradewind; this version reads up to format 1" in said["reason"]
    assert "Update this gateway" in said["reason"]


async def test_a_table_file_of_a_newer_version_is_not_followed_and_the_gateway_says_why(tmp_path: Path) -> None:
    path = tmp_path / "chat.table"
    path.write_text('{"format": 9}')
    source = FileSource(path)
    assert source._load() is None
    assert str(path) in (source.why or "")
    assert "format 9" in (source.why or "")


def test_a_router_goes_on_with_the_key_of_the_first_version_and_leaves_its_trust_file_alone(tmp_path: Path) -> None:
    key = private_key(tmp_path / "router.key")
    public = copied("router.key.pub", public_path(key))
    before = public.read_bytes()
    public.chmod(0o400)
    signer = load_or_make(key)
    assert public.read_bytes() == before, "it may lie in a folder that cannot be written"
    assert signer.kid in load_trust(public).keys


def test_a_trust_file_of_today_says_its_format_beside_the_key(tmp_path: Path) -> None:
    key = private_key(tmp_path / "router.key")
    load_or_make(key)
    (line,) = public_path(key).read_text().splitlines()
    assert line.endswith("# tradewind router, trust file format 1")
    assert load_trust(public_path(key)).keys.keys() == load_trust(V1 / "router.key.pub").keys.keys()


def test_a_trust_file_of_a_newer_version_is_refused_also_behind_one_of_today(tmp_path: Path) -> None:
    both = tmp_path / "both.pub"
    both.write_text((V1 / "router.key.pub").read_text() + "ed25519ph:x # tradewind router, trust file format 2\n")
    with pytest.raises(TooNew, match=rf"{both} is of format 2.*up to format 1.*Update Tradewind here"):
        load_trust(both)


def test_api_keys_of_the_first_version_let_their_owner_in() -> None:
    access = load_access(V1 / "api-keys.yaml", anonymous=False)
    caller = access.who(CIMultiDictProxy(CIMultiDict({"Authorization": "Bearer sk-golden"})))
    assert (caller.tenant, caller.classes) == ("demo", ("chat",))


def test_api_keys_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"sk").hexdigest()
    path = tmp_path / "keys.yaml"
    path.write_text(f"format: 1\nkeys:\n  - {{sha256: {digest}, tenant: acme}}\n")
    load_access(path, anonymous=False)
    path.write_text("format: 2\nkeys: {acme: something else}\n")
    with pytest.raises(TooNew, match=rf"{path} is of format 2.*Update this gateway"):
        load_access(path, anonymous=False)


def test_a_demo_goes_on_in_a_folder_of_the_first_version_and_signs_it_anew(tmp_path: Path) -> None:
    mark = copied("tradewind-demo", tmp_path / DEMO_MARK)
    (tmp_path / "kept").touch()
    with fresh_folder(tmp_path, keep=True):
        assert (tmp_path / "kept").exists()
    assert "Format 1." in mark.read_text().splitlines()


def test_a_demo_does_not_keep_what_a_newer_one_left_but_may_empty_it(tmp_path: Path) -> None:
    mark = tmp_path / DEMO_MARK
    mark.write_text("This folder is a demo's.\nFormat 2.\n")
    (tmp_path / "kept").touch()
    with pytest.raises(TooNew, match="without --keep"), fresh_folder(tmp_path, keep=True):
        pytest.fail("it was taken")
    assert (tmp_path / "kept").exists()
    with fresh_folder(tmp_path, keep=False):
        assert list(tmp_path.iterdir()) == [mark]
    assert "Format 1." in mark.read_text().splitlines()


def test_a_broker_folder_without_a_mark_is_of_the_first_format_and_gets_one(tmp_path: Path) -> None:
    claim(tmp_path, "4.4.0")
    assert json.loads((tmp_path / MARK).read_text()) == {"format": 1, "kafka": "4.4.0"}
    claim(tmp_path, "4.10.0")
    assert json.loads((tmp_path / MARK).read_text())["kafka"] == "4.10.0"


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ({"format": 2, "kafka": ["5.0.0"]}, "is of format 2, written by a newer Tradewind"),
        ({"format": 1, "kafka": "4.10.0"}, r"was used by Kafka 4\.10\.0 last; this version brings Kafka 4\.4\.0"),
    ],
)
def test_a_broker_folder_of_a_newer_version_is_refused_and_not_touched(
    tmp_path: Path, says: dict[str, object], words: str
) -> None:
    path = tmp_path / MARK
    path.write_bytes(msgspec.json.encode(says))
    with pytest.raises(Stop, match=rf"{tmp_path}.*{words}.*Update Tradewind, or name another folder"):
        claim(tmp_path, "4.4.0")
    assert json.loads(path.read_bytes()) == says


def test_a_mark_that_is_no_mark_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / MARK).write_text("4.4.0")
    with pytest.raises(Stop, match="says nothing of its folder"):
        claim(tmp_path, "4.4.0")
