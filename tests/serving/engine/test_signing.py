import datetime
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from calotype.cascade.png import read_recipe
from calotype.cascade.provenance import SOURCE_TYPES
from calotype.errors import CalotypeError, MissingExtra, UsageError
from calotype.serving.engine.files import encode_file
from calotype.serving.engine.signing import Signer

c2pa = pytest.importorskip("c2pa", reason="c2pa-python is not installed: pip install '.[c2pa]'")
pytest.importorskip("cryptography", reason="cryptography, which makes the test's CA, is missing")
from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519  # noqa: E402
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: E402

PIXELS = np.linspace(0, 255, 32 * 48 * 3).reshape(32, 48, 3).astype(np.uint8)
RECIPE = {"kind": "sample", "caption": "a fox", "seed": 7, "version": "0.1"}
EDITED = {**RECIPE, "kind": "edit", "source_sha256": "ab", "edit": {"strength": 0.5}}
PEM = serialization.Encoding.PEM


def named(name):
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "tests"),
        ]
    )


def certificate(name, key, issuer, issuer_key, *, is_ca):
    usage = dict.fromkeys(
        (
            "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "encipher_only", "decipher_only",
        ),
        False,
    )  # fmt: skip
    now = datetime.datetime.now(datetime.UTC)
    public = key.public_key()
    built = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(is_ca, None), True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_ca, key_cert_sign=is_ca, crl_sign=is_ca, **usage
            ),
            True,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
    )
    if not is_ca:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        built = built.add_extension(purpose, False)
    return built.sign(issuer_key, hashes.SHA256()).public_bytes(PEM)


KINDS = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


def pem(key, cipher=None):
    cipher = serialization.NoEncryption() if cipher is None else cipher
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, cipher)


@pytest.fixture(scope="module")
def authority():
    key = KINDS["P-256"]()
    return key, certificate("authority", key, "authority", key, is_ca=True)


def files(folder, key, authority):
    ca_key, ca = authority
    (folder / "cert.pem").write_bytes(
        certificate("server", key, "authority", ca_key, is_ca=False) + ca
    )
    (folder / "key.pem").write_bytes(pem(key))
    return folder / "cert.pem", folder / "key.pem"


def read(data, format, ca):
    trust = {
        "trust": {"trust_anchors": ca.decode()},
        "verify": {"verify_trust": True},
    }
    context = c2pa.Context.from_dict(trust)
    with c2pa.Reader(f"image/{format}", io.BytesIO(data), context=context) as reader:
        return reader.get_validation_state(), json.loads(reader.json())


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("recipe", [RECIPE, EDITED], ids=["created", "edited"])
def test_a_signed_file_says_how_it_was_made(tmp_path, authority, format, recipe):
    signer = Signer(*files(tmp_path, KINDS["P-256"](), authority))
    plain = encode_file(PIXELS, recipe, format=format, compression=90, metadata=True)
    signed = signer.sign(plain, format, recipe)
    state, told = read(signed, format, authority[1])
    assert state == "Trusted"
    (manifest,) = told["manifests"].values()
    assert manifest["claim_generator_info"][0]["name"] == "calotype"
    assert "thumbnail" not in manifest
    (actions,) = (one for one in manifest["assertions"] if one["label"].startswith("c2pa.actions"))
    names = [action["action"] for action in actions["data"]["actions"]]
    assert names == (["c2pa.created"] if recipe is RECIPE else ["c2pa.created", "c2pa.edited"])
    made = "composite" if recipe is EDITED else "trained"
    for action in actions["data"]["actions"]:
        assert action["digitalSourceType"].startswith(SOURCE_TYPES + made)

    path = tmp_path / "image"
    path.write_bytes(signed)
    assert read_recipe(path) == recipe  # signing leaves what was there
    with Image.open(path) as image, Image.open(io.BytesIO(plain)) as before:
        assert np.array_equal(np.asarray(image), np.asarray(before))
        assert b"TrainedAlgorithmicMedia<" in image.info["xmp"].replace(b"/trained", b"/Trained")


def test_a_changed_file_is_noticed(tmp_path, authority):
    signer = Signer(*files(tmp_path, KINDS["P-256"](), authority))
    plain = encode_file(PIXELS, RECIPE, format="jpeg", compression=90, metadata=True)
    signed = bytearray(signer.sign(plain, "jpeg", RECIPE))
    signed[-40] ^= 1
    assert read(bytes(signed), "jpeg", authority[1])[0] == "Invalid"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_key(tmp_path, authority, kind):
    signer = Signer(*files(tmp_path, KINDS[kind](), authority))
    plain = encode_file(PIXELS, RECIPE, format="webp", compression=90, metadata=False)
    with ThreadPoolExecutor(4) as threads:
        signed = list(threads.map(lambda _: signer.sign(plain, "webp", RECIPE), range(8)))
    assert {read(data, "webp", authority[1])[0] for data in signed} == {"Trusted"}


def test_what_does_not_sign_is_refused_at_once(tmp_path, authority):
    key = KINDS["P-256"]()
    chain, own = files(tmp_path, key, authority)
    other = tmp_path / "other.pem"

    def message(certificate, key):
        with pytest.raises(UsageError) as caught:
            Signer(certificate, key)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "cannot read" in message(tmp_path / "none.pem", own)
    assert "cannot read" in message(chain, tmp_path)
    other.write_bytes(pem(KINDS["P-256"]()))
    assert "do not sign" in message(chain, other)
    other.write_bytes(b"no key")
    assert "as PEM" in message(chain, other)
    assert "do not sign" in message(other, own)
    other.write_bytes(pem(key, serialization.BestAvailableEncryption(b"secret")))
    assert "without a password" in message(chain, other)
    other.write_bytes(pem(x25519.X25519PrivateKey.generate()))
    assert "expected EC" in message(chain, other)


def test_what_is_no_image_is_not_signed(tmp_path, authority):
    signer = Signer(*files(tmp_path, KINDS["P-256"](), authority))
    with pytest.raises(CalotypeError, match="could not be signed"):
        signer.sign(b"no image", "png", RECIPE)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "c2pa", None)
    with pytest.raises(MissingExtra, match=r"calotype\[c2pa\]"):
        Signer(tmp_path, tmp_path)
