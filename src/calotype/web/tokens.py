"""Random tokens: ids nobody can guess, links, keys; of secret ones only the hash is kept."""

from __future__ import annotations

import hashlib
import secrets


def new_token() -> str:
    """128 random bits, in hexadecimal."""
    return secrets.token_hex(16)


def token_hash(token: str) -> str:
    """What is kept of a token: it has 128 random bits, so that a plain hash cannot be undone."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
