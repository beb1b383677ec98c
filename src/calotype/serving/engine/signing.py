"""Finished files are signed by C2PA with the user's certificate, as the last thing done to them.

Nothing goes over a network: there is no time stamp of an authority.
Reference: C2PA specification 2.1, actions c2pa.created and c2pa.edited.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from calotype import __version__
from calotype.cascade.png import encode_png
from calotype.cascade.provenance import source_type
from calotype.errors import CalotypeError, MissingExtra, UsageError
from calotype.serving.job import Format
from calotype.storage.reading import read_regular

_MOST_BYTES = 2**20  # of a certificate chain, or a key
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
# A thumbnail would be larger than many an image.
_SETTINGS = {"builder": {"thumbnail": {"enabled": False}}}


class Signer:
    """Signs files with a certificate; may be asked by several threads.

    Args:
        certificate: PEM of the chain, that of the key first.
        key: PEM of its private key, PKCS #8, without a password.

    Raises:
        UsageError: they cannot be read, or do not sign.
        MissingExtra: c2pa-python or cryptography is not installed.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        try:
            import c2pa
        except ImportError as error:
            raise MissingExtra("c2pa", "c2pa-python") from error
        self._c2pa = c2pa
        self._chain, self._key = _read(certificate), _read(key)
        self._algorithm = _algorithm(self._key, key)
        self._context = c2pa.Context.from_dict(_SETTINGS)
        try:  # now, not when the first image is finished
            self.sign(encode_png(np.zeros((8, 8, 3), np.uint8)), "png", {})
        except CalotypeError as error:
            raise UsageError(
                f"got {certificate} and {key}, which do not sign ({error}); expected a "
                "certificate for C2PA, the chain above it, and its key"
            ) from error

    def sign(self, data: bytes, format: Format, recipe: Mapping[str, Any]) -> bytes:
        """The file with a signed manifest: what made it, and from what.

        Args:
            data: the file.
            format: of it.
            recipe: of its image: created, or edited.

        Raises:
            CalotypeError: it could not be signed.
        """
        c2pa = self._c2pa
        kind = source_type(recipe)
        names = ["c2pa.created"]  # first in every manifest without an earlier one
        if "source_sha256" in recipe or recipe.get("kind") == "edit":
            names.append("c2pa.edited")
        actions = [{"action": name, "digitalSourceType": kind} for name in names]
        manifest = {
            "claim_generator_info": [{"name": "calotype", "version": __version__}],
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}],
        }
        signed = io.BytesIO()
        try:
            info = c2pa.C2paSignerInfo(self._algorithm, self._chain, self._key, None)
            with (
                c2pa.Signer.from_info(info) as signer,
                c2pa.Builder(json.dumps(manifest), context=self._context) as builder,
            ):
                builder.sign(signer, f"image/{format}", io.BytesIO(data), signed)
        except c2pa.C2paError as error:
            raise CalotypeError(f"the image could not be signed: {_line(error)}") from error
        return signed.getvalue()


def _algorithm(pem: bytes, path: Path) -> str:
    """The name that C2PA has for what a private key signs with."""
    try:
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        raise MissingExtra("c2pa", "cryptography") from error
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:  # TypeError: it has a password
        raise UsageError(
            f"cannot read the key {path}; expected a private key as PEM, without a password"
        ) from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise UsageError(
        f"got {path}, a key of a kind that C2PA has not; expected EC (P-256, P-384, P-521), RSA or "
        "Ed25519"
    )


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, most_bytes=_MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {path}: {reason}; name a file of PEM") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
