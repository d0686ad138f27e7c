"""Seals: secret, bound, opened by whoever has the secret and by nobody else."""

import os
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

import failsoft.sessions.seal as module
from failsoft.errors import ConfigurationError
from failsoft.sessions.seal import MIN_SECRET, OVERHEAD, KeyRing

FIRST = "the first of the secrets"
SECOND = "the second of the secrets"
THIRD = "the third of the secrets"
RING = KeyRing(FIRST, purpose="tests")


def counting(start: int = 0) -> Callable[[int], bytes]:
    """Nonces that a test can foresee."""
    calls = iter(range(start, start + 100))
    return lambda size: next(calls).to_bytes(size, "big")


@settings(deadline=None)
@given(st.binary(), st.binary())
def test_round_trip(plain: bytes, bound: bytes) -> None:
    """What was sealed is opened by the same secret, and is longer by what the module says."""
    sealed = RING.seal(plain, bound)
    assert (plain, len(plain) + OVERHEAD) == (KeyRing(FIRST, purpose="tests").unseal(sealed, bound), len(sealed))


@settings(deadline=None)
@given(st.binary(max_size=64), st.data())
def test_changed_seal_is_none(plain: bytes, data: st.DataObject) -> None:
    """With any one bit changed, wherever it is, a seal is none."""
    sealed = bytearray(RING.seal(plain, b"bound"))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    assert RING.unseal(bytes(sealed), b"bound") is None


def test_cut_or_extended_seal_is_none() -> None:
    """A seal that lacks bytes on either side, or has some too many, is none."""
    sealed = RING.seal(b"plain", b"bound")
    cut = [sealed[:size] for size in range(len(sealed))] + [sealed[size:] for size in range(1, len(sealed))]
    assert {None} == {RING.unseal(each, b"bound") for each in [*cut, sealed + b"\0", b"\0" + sealed]}


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_anything_else_is_none(sealed: bytes) -> None:
    """Bytes that nobody sealed are none, with the right beginning too."""
    begin = RING.seal(b"", b"")[:5]
    assert (None, None) == (RING.unseal(sealed, b""), RING.unseal(begin + sealed, b""))


@pytest.mark.parametrize("other", [b"", b"boun", b"bound\0", b"\0bound", b"BOUND"])
def test_bound_elsewhere_is_none(other: bytes) -> None:
    """A seal is opened only together with what it was bound to."""
    assert RING.unseal(RING.seal(b"plain", b"bound"), other) is None


@pytest.mark.parametrize(
    "other",
    [KeyRing(FIRST, purpose="test"), KeyRing(SECOND, purpose="tests"), KeyRing(SECOND, [THIRD], purpose="tests")],
)
def test_other_ring_cannot_open(other: KeyRing) -> None:
    """Neither another purpose of the same secret nor another secret opens a seal."""
    assert other.unseal(RING.seal(b"plain", b"bound"), b"bound") is None


def test_secrets_are_replaced() -> None:
    """The first secret seals; the fallbacks open what they sealed when they were first, and nothing of theirs is made anew."""
    before = KeyRing(FIRST, purpose="tests")
    after = KeyRing(SECOND, [THIRD, FIRST], purpose="tests")
    assert b"old" == after.unseal(before.seal(b"old", b""), b"")
    assert before.unseal(after.seal(b"new", b""), b"") is None
    assert b"new" == KeyRing(SECOND, purpose="tests").unseal(after.seal(b"new", b""), b"")


def test_layout() -> None:
    """A seal is made of the parts that the module documents, with standard primitives."""
    derived = HKDF(SHA256(), 36, salt=None, info=b"failsoft/seal/tests").derive(FIRST.encode())
    head, nonce = b"\x01" + derived[:4], bytes(11) + b"\x07"
    expected = head + nonce + AESGCM(derived[4:]).encrypt(nonce, b"plain", head + b"bound")
    assert expected == KeyRing(FIRST, purpose="tests", random=counting(7)).seal(b"plain", b"bound")


def test_each_seal_has_its_own_nonce() -> None:
    """The same text sealed twice shows no likeness, unless a test takes chance away."""
    random = KeyRing(FIRST, purpose="tests")
    fixed = KeyRing(FIRST, purpose="tests", random=bytes)
    assert (2, 1) == tuple(len({ring.seal(b"plain", b"") for _ in range(2)}) for ring in (random, fixed))


def test_secrets_with_one_key_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two secrets have the same key id, both are tried, and the first still seals."""
    derive = module._derive
    monkeypatch.setattr(module, "_derive", lambda *args: b"same" + derive(*args)[4:])
    first, second = KeyRing(FIRST, purpose="tests"), KeyRing(SECOND, purpose="tests")
    both = KeyRing(FIRST, [SECOND], purpose="tests")
    assert (b"1", b"2") == (both.unseal(first.seal(b"1", b""), b""), both.unseal(second.seal(b"2", b""), b""))
    assert b"3" == first.unseal(both.seal(b"3", b""), b"")
    assert second.unseal(first.seal(b"1", b""), b"") is None


def test_digest() -> None:
    """A digest depends on the text, the first secret and the purpose, and on nothing else."""
    same = [RING.digest("7"), KeyRing(FIRST, [SECOND], purpose="tests").digest("7")]
    others = [
        RING.digest("8"),
        RING.digest(""),
        KeyRing(SECOND, [FIRST], purpose="tests").digest("7"),
        KeyRing(FIRST, purpose="test").digest("7"),
    ]
    assert (1, 5) == (len(set(same)), len({same[0], *others}))


@settings(deadline=None)
@given(st.text(st.characters()))
def test_digest_is_a_short_word(value: str) -> None:
    """Any text, lone surrogates included, has a digest of 32 URL-safe characters."""
    digest = RING.digest(value)
    assert (32, True) == (len(digest), digest.replace("-", "a").replace("_", "a").isalnum())


@pytest.mark.parametrize("arguments", [("x" * (MIN_SECRET - 1),), (FIRST, ["", SECOND]), (FIRST, ["short-secret"])])
def test_short_secret_is_refused(arguments: tuple[str, list[str]] | tuple[str]) -> None:
    """A secret that could be guessed is refused, without being shown."""
    with pytest.raises(ConfigurationError, match="too short to seal a tests with; accepted: at least 16") as caught:
        KeyRing(*arguments, purpose="tests")
    assert not any(secret in str(caught.value) for secret in (FIRST, "short-secret", "xxx"))


def test_shows_no_secrets() -> None:
    """A ring's repr is its purpose, and no attribute holds a secret."""
    ring = KeyRing(FIRST, [SECOND], purpose="tests", random=os.urandom)
    held = {name: getattr(ring, name) for name in KeyRing.__slots__}
    assert "<KeyRing 'tests'>" == repr(ring)
    assert not any(secret in repr(held) for secret in (FIRST, SECOND))
