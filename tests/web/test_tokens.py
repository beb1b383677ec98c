"""Tokens: long enough, never the same, kept as their SHA-256."""

from calotype.web.tokens import new_token, token_hash


def test_tokens_have_128_bits_and_are_new():
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100 and all(len(bytes.fromhex(token)) == 16 for token in tokens)


def test_the_hash_is_sha256_of_any_text():
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert token_hash("abc") == known
    assert token_hash("\ud800") == token_hash("?")
