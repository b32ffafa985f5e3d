"""Secrets, their hashes and signed tokens."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headcount.devices import credentials

KEY = credentials.token_key("a deployment's secret, long enough")
NOW_S = 1_790_000_000.0


def test_a_secret_matches_its_hash_and_no_other_does() -> None:
    """Only the secret itself matches its hash, the hash does not contain it, and two hashes of it differ."""
    secret, other = credentials.new_secret(), credentials.new_secret()
    hashes = [credentials.hash_secret(secret) for _ in range(2)]
    assert re.fullmatch(r"[a-z2-7]{32}", secret)
    assert hashes[0] != hashes[1]
    assert all(credentials.verify_secret(secret, one) for one in hashes)
    assert not credentials.verify_secret(other, hashes[0])
    assert secret not in hashes[0]


@pytest.mark.parametrize(
    "hash_",
    [
        "",
        "$7$",
        "$7$101$$",
        f"$7$10001${'A' * 16}${'A' * 86}==",
        f"$7$0${'A' * 16}${'A' * 86}==",
        f"$6$101${'A' * 16}${'A' * 86}==",
        "plain$secret",
    ],
)
def test_a_damaged_hash_matches_nothing(hash_: str) -> None:
    """An invalid hash matches nothing and raises nothing."""
    assert not credentials.verify_secret("secret", hash_)


@given(secret=st.text(max_size=300), hash_=st.text(max_size=120))
@settings(max_examples=200, deadline=None)
def test_nothing_raises(secret: str, hash_: str) -> None:
    """Any text and any hash give an answer."""
    assert not credentials.verify_secret(secret, hash_)
    assert not credentials.verify_secret(secret, credentials.hash_secret("not this one, I hope"))


def test_a_lone_surrogate_is_rejected() -> None:
    """A text without a UTF-8 encoding is rejected."""
    assert not credentials.verify_secret("\ud800", credentials.hash_secret("secret"))


def test_a_signed_token_is_valid_until_its_end() -> None:
    """A token has its device and creation time, and is valid until before its end."""
    token = credentials.sign_token(KEY, "a" * 20, NOW_S + 60, NOW_S)
    claims = credentials.DeviceTokenClaims("a" * 20, NOW_S, NOW_S + 60)
    assert credentials.verify_token(KEY, token, NOW_S) == claims
    assert credentials.verify_token(KEY, token, NOW_S + 59.9) is not None
    assert credentials.verify_token(KEY, token, NOW_S + 60) is None
    assert credentials.verify_token(KEY, token, NOW_S - 3600) is None


def test_a_token_of_another_key_or_algorithm_is_rejected() -> None:
    """A token of another deployment, without a signature, or changed is rejected."""
    token = credentials.sign_token(KEY, "a" * 20, NOW_S + 60, NOW_S)
    head, claims, signature = token.split(".")
    unsigned = "eyJhbGciOiJub25lIn0"
    for other in (
        credentials.sign_token(credentials.token_key("another secret"), "a" * 20, NOW_S + 60, NOW_S),
        f"{unsigned}.{claims}.",
        f"{unsigned}.{claims}.{signature}",
        f"{head}.{claims[:-2]}AA.{signature}",
        f"{head}.{claims}.{signature[:-4]}AAAA",
        "..",
        "a.b.c",
        f"{head}.{claims}.{'A' * 2000}",
    ):
        assert credentials.verify_token(KEY, other, NOW_S) is None


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_text_is_no_token(text: str) -> None:
    """No text raises an exception or passes as a token."""
    for token in (text, f"{text}.{text}.{text}", f"eyJhbGciOiJIUzI1NiJ9.{text}.A"):
        assert credentials.verify_token(KEY, token, NOW_S) is None
