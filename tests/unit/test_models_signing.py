"""No bundle is used that nobody whom this machine trusts has signed, byte for byte; no private key gets out."""

import json
import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from configs.errors import BundleError
from configs.settings import Settings
from models import bundle as bundles
from models import signing
from models.bundle import FILES, MANIFEST, ONNX, SIGNATURE


def today():
    """Asked when a test needs it: a run may go past midnight."""
    return datetime.now(UTC).date()


MAKE = """
import sys
from pathlib import Path
from configs.settings import Settings
from models import signing
sys.stdin.readline()
print(signing.sign(b"{}", Settings(home=Path(sys.argv[1]))).decode().replace("\\n", ""))
"""


@pytest.fixture
def folder(trained, tmp_path):
    """The trained bundle's folder, unsigned."""
    return Path(shutil.copytree(trained.folder, tmp_path / "angina", ignore=shutil.ignore_patterns(SIGNATURE)))


@pytest.fixture
def kept(folder, home):
    """The same, signed, in the store of `home`."""
    return bundles.put(bundles.sign(folder, home), home)


def edit(settings, **changed):
    """Change the only key of the trust file, as an administrator would with an editor."""
    document = json.loads(settings.trust_file.read_bytes())
    document["keys"][0] |= changed
    settings.trust_file.write_text(json.dumps(document))


def public_of(settings, path):
    path.write_bytes(signing.own_public(settings))
    return path.read_bytes()


@pytest.mark.parametrize("place", [0, 0.3, 0.5, 0.9, 1])
@pytest.mark.parametrize("name", sorted(FILES | ONNX | {MANIFEST, SIGNATURE}))
def test_one_changed_byte_anywhere_is_refused_and_its_file_named(kept, folder, home, name, place):
    for where in (kept.folder, folder):
        content = bytearray((where / name).read_bytes())
        content[int(place * (len(content) - 1))] ^= 1
        (where / name).write_bytes(content)

    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        bundles.get(kept.digest, home)
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        bundles.put(folder, home)


def test_every_flipped_bit_of_a_signature_is_refused(kept, home):
    whole = (kept.folder / SIGNATURE).read_bytes()
    manifest = (kept.folder / MANIFEST).read_bytes()
    for place in range(len(whole)):
        for bit in (1, 32):
            changed = bytearray(whole)
            changed[place] ^= bit
            (kept.folder / SIGNATURE).write_bytes(changed)
            with pytest.raises(BundleError, match=SIGNATURE):
                signing.verify(kept.folder, manifest, home)


@pytest.mark.parametrize("length", [0, 1, 40, 100, -1])
def test_a_truncated_signature_is_refused(kept, home, length):
    content = (kept.folder / SIGNATURE).read_bytes()
    (kept.folder / SIGNATURE).write_bytes(content[:length])
    with pytest.raises(BundleError, match="SIGNATURE is damaged"):
        bundles.get(kept.digest, home)


def test_an_unsigned_bundle_is_read_and_not_stored(folder, home, trained):
    assert bundles.load(folder).digest == trained.digest
    with pytest.raises(BundleError, match=r"is unsigned.*medimind keys sign"):
        bundles.put(folder, home)
    assert not home.store.exists()


def test_a_signature_changes_no_digest(folder, home, trained):
    assert bundles.load(bundles.sign(folder, home)).digest == trained.digest


def test_a_forger_who_seals_his_changes_is_refused(folder, home, reseal):
    bundles.sign(folder, home)
    (folder / "thresholds.json").write_text('{"rule_out": 0.01, "alert": 0.02}')
    reseal(folder)
    with pytest.raises(BundleError, match=r"SIGNATURE is not of this MANIFEST\.json"):
        bundles.put(folder, home)


def test_the_private_key_is_for_its_owner_alone(kept, home):
    assert stat.S_IMODE(home.signing_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.trust_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.signing_file.parent.stat().st_mode) == 0o700
    assert "PRIVATE" not in home.trust_file.read_text() + (kept.folder / SIGNATURE).read_text()


def test_two_processes_that_make_the_key_at_once_end_with_one(child, tmp_path):
    home = tmp_path / "home"
    started = [child(MAKE, home) for _ in range(4)]
    said = {process.communicate("go\n", timeout=60)[0] for process in started}
    assert len(said) == 1  # Ed25519 signs without chance: one key, one signature
    (only,) = signing.trusted(Settings(home=home))
    assert only.id == json.loads(said.pop())["key"] == signing.own_id(Settings(home=home))


@pytest.mark.parametrize("form", ["path", "PEM"])
def test_the_key_may_be_given(folder, home, tmp_path, form):
    signing.sign(b"{}", home)
    pem = home.signing_file
    other = Settings(home=tmp_path / "other", signing_key=str(pem) if form == "path" else pem.read_text())

    kept = bundles.put(bundles.sign(folder, other), other)

    assert json.loads((kept.folder / SIGNATURE).read_bytes())["key"] == signing.own_id(home)
    assert not other.signing_file.exists()
    assert pem.read_text().splitlines()[1] not in repr(other)
    with pytest.raises(BundleError, match="MEDIMIND_SIGNING_KEY"):
        signing.rotate(other)


@pytest.mark.parametrize(
    "given", ["nowhere.pem", "-----BEGIN PRIVATE KEY-----\nsecretsecret\n-----END PRIVATE KEY-----", "a\0b", "x" * 5000]
)
def test_a_given_key_that_is_none_is_refused_and_not_quoted(home, given):
    other = home.model_copy(update={"signing_key": type(home.signing_key)(given)})
    with pytest.raises(BundleError, match="MEDIMIND_SIGNING_KEY") as raised:
        signing.sign(b"{}", other)
    assert "secretsecret" not in str(raised.value) and "xxxx" not in str(raised.value)
    assert not home.signing_file.exists()


def test_a_key_of_another_kind_is_refused(home, tmp_path):
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(BundleError, match="Ed25519 is expected"):
        signing.trust(pem.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "a note", None, home)
    with pytest.raises(BundleError, match="no public key"):
        signing.trust(b"nothing", "a note", None, home)


def test_after_a_rotation_what_is_served_goes_on_and_the_new_key_signs(kept, folder, home):
    before = home.signing_file.read_bytes()
    old, new = signing.rotate(home)

    assert bundles.get(kept.digest, home) == kept
    bundles.sign(folder, home)
    assert json.loads((folder / SIGNATURE).read_bytes())["key"] == new == signing.own_id(home) != old
    assert [key.id for key in signing.trusted(home)] == [old, new]
    assert before not in [path.read_bytes() for path in home.signing_file.parent.iterdir()]
    assert stat.S_IMODE(home.signing_file.stat().st_mode) == 0o600


def test_a_revoked_key_neither_vouches_nor_signs(kept, folder, home):
    signing.revoke(signing.own_id(home), "lost", home)
    with pytest.raises(BundleError, match=f"revoked on {today()}"):
        bundles.get(kept.digest, home)
    with pytest.raises(BundleError, match="rotate"):
        bundles.sign(folder, home)
    with pytest.raises(BundleError, match="already"):
        signing.revoke(signing.own_id(home), "lost", home)
    with pytest.raises(BundleError, match="'0000'"):
        signing.revoke("0000", "lost", home)


def test_a_key_is_trusted_to_the_end_of_its_last_day(kept, home):
    edit(home, expires=str(today()))
    assert bundles.get(kept.digest, home) == kept
    yesterday = today() - timedelta(days=1)
    edit(home, expires=str(yesterday))
    with pytest.raises(BundleError, match=f"expired after {yesterday}"):
        bundles.get(kept.digest, home)


def test_an_unknown_key_is_refused_until_it_is_trusted(folder, home, tmp_path):
    other = Settings(home=tmp_path / "other")
    bundles.sign(folder, other)

    with pytest.raises(BundleError, match=f"unknown key '{signing.own_id(other)}'.*{home.trust_file}"):
        bundles.put(folder, home)
    signing.trust(public_of(other, tmp_path / "other.pem"), "the ward's machine", None, home)

    assert bundles.put(folder, home).folder.parent == home.store
    with pytest.raises(BundleError, match="already"):
        signing.trust(public_of(other, tmp_path / "other.pem"), "again", None, home)


def test_a_trust_file_may_lie_elsewhere(kept, home, tmp_path):
    elsewhere = tmp_path / "trust.json"
    moved = home.model_copy(update={"trust": str(elsewhere)})
    with pytest.raises(BundleError, match=r"unknown key.*trust\.json"):
        bundles.get(kept.digest, moved)
    shutil.copyfile(home.trust_file, elsewhere)
    assert bundles.get(kept.digest, moved) == kept


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"keys": 1}', '{"keys": [{}]}', '{"keys": [1]}', "\xff", '{"keys": [{"id": "0", "public": "0"}]}'],
)
def test_with_a_damaged_trust_file_nothing_is_trusted(kept, home, content):
    home.trust_file.write_bytes(content.encode("latin-1"))
    with pytest.raises(BundleError, match="the trust file is damaged"):
        bundles.get(kept.digest, home)
    with pytest.raises(BundleError, match="the trust file is damaged"):
        signing.sign(b"{}", home)
    assert home.trust_file.read_bytes() == content.encode("latin-1")


@pytest.mark.parametrize(
    "changed", [{"id": "0" * 16}, {"public": "00" * 32}, {"expires": "soon"}, {"added": None}, {"revoke": "2026-01-01"}]
)
def test_an_entry_that_does_not_hold_together_damages_the_trust_file(kept, home, changed):
    edit(home, **changed)
    with pytest.raises(BundleError, match="the trust file is damaged"):
        bundles.get(kept.digest, home)
