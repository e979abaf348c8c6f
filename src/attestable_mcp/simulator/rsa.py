"""RSA keys and RSASSA-PSS signatures that follow from a seed (RFC 8017), for vendors that sign with RSA as AMD does.

Slow in its search for primes, a quarter of a second a key (those of the well-known seed are remembered), and open to
every side channel: the keys are worthless.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestable_mcp.simulator.keys import WELL_KNOWN_SEED

BITS = 2048
"""AMD has 4096, which would take seconds to find; readers take both."""
_EXPONENT = 65537
_WINDOW = 1 << 13
_ROUNDS = (2, 3, 5, 7, 11, 13)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """The two primes; everything else follows."""

    p: int
    q: int

    @property
    def modulus(self) -> int:
        """p * q, of 2048 bits."""
        return self.p * self.q

    @property
    def spki(self) -> bytes:
        """DER SubjectPublicKeyInfo."""
        public = rsa.RSAPublicNumbers(_EXPONENT, self.modulus).public_key()
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def raw(self, message: int) -> int:
        """message ^ d mod n. The same certificates are signed again and again: what was once found is remembered."""
        return _raw(self.p, self.q, message)


@functools.lru_cache(maxsize=256)
def _raw(p: int, q: int, message: int) -> int:
    """By way of the two primes, which takes a third of the time (RFC 8017 §5.1.2)."""
    of_p, of_q = (pow(message, pow(_EXPONENT, -1, prime - 1), prime) for prime in (p, q))
    return of_q + q * ((of_p - of_q) * pow(q, -1, p) % p)


WELL_KNOWN_STEPS: Mapping[str, tuple[int, int]] = {
    "ark Milan": (1514, 176),
    "ask Milan": (624, 76),
    "ark Genoa": (294, 88),
    "ask Genoa": (336, 116),
    "ark Turin": (732, 12),
    "ask Turin": (716, 996),
    "tpm ak": (4, 104),
}
"""How far the search goes for the keys of the well-known seed, so that nobody has to wait for it again."""


@functools.lru_cache(maxsize=64)
def key(seed: bytes, name: str) -> Key:
    """The key of a seed and a name."""
    if seed == WELL_KNOWN_SEED and name in WELL_KNOWN_STEPS:
        steps = WELL_KNOWN_STEPS[name]
        return Key(p=_start(seed, name, "p") + steps[0], q=_start(seed, name, "q") + steps[1])
    return search(seed, name)


def search(seed: bytes, name: str) -> Key:
    """The same, always by looking for the primes."""
    return Key(p=_prime(_start(seed, name, "p")), q=_prime(_start(seed, name, "q")))


def _start(seed: bytes, name: str, which: str) -> int:
    """An odd number from which to look; both top bits set, so that products have full length."""
    material = seed + b"\0rsa\0" + f"{name}\0{which}".encode()
    half = BITS // 2
    return int.from_bytes(hashlib.shake_256(material).digest(half // 8), "big") | 3 << half - 2 | 1


def _prime(start: int) -> int:
    """The first good prime from there on."""
    for candidate in range(start, start + (1 << 20), 2):
        if _may_be_prime(candidate) and math.gcd(candidate - 1, _EXPONENT) == 1:
            return candidate
    raise AssertionError("no prime in half a million numbers")


@functools.cache
def _small_primes() -> int:
    """The product of the odd primes below the window, for one gcd that sorts out nine candidates in ten."""
    sieve = bytearray([1]) * _WINDOW
    for number in range(3, int(_WINDOW**0.5) + 1, 2):
        if sieve[number]:
            sieve[number * number :: 2 * number] = bytes(len(range(number * number, _WINDOW, 2 * number)))
    return math.prod(number for number in range(3, _WINDOW, 2) if sieve[number])


def _may_be_prime(number: int) -> bool:
    return math.gcd(number, _small_primes()) == 1 and all(_passes(number, base) for base in _ROUNDS)


def _passes(number: int, base: int) -> bool:
    """One round of Miller and Rabin."""
    twos = (number - 1 & -(number - 1)).bit_length() - 1
    value = pow(base, number - 1 >> twos, number)
    if value in (1, number - 1):
        return True
    for _ in range(twos - 1):
        value = value * value % number
        if value == number - 1:
            return True
    return False


def sign_pss(signer: Key, message: bytes, hash_name: str = "sha384") -> bytes:
    """RSASSA-PSS with MGF1 over the same hash and a salt of its length, which follows from key and message."""
    size = signer.modulus.bit_length() // 8
    digest = hashlib.new(hash_name, message).digest()
    salt = hashlib.new(hash_name, digest + signer.p.to_bytes(size, "big")).digest()
    inner = hashlib.new(hash_name, bytes(8) + digest + salt).digest()
    block = bytes(size - len(salt) - len(inner) - 2) + b"\x01" + salt
    mask = _mgf1(inner, len(block), hash_name)
    masked = bytearray(left ^ right for left, right in zip(block, mask, strict=True))
    masked[0] &= 0x7F
    return signer.raw(int.from_bytes(bytes(masked) + inner + b"\xbc", "big")).to_bytes(size, "big")


def _mgf1(seed: bytes, size: int, hash_name: str) -> bytes:
    blocks = (hashlib.new(hash_name, seed + counter.to_bytes(4, "big")).digest() for counter in range(size // 20 + 1))
    return b"".join(blocks)[:size]


def sign_pkcs1(signer: Key, message: bytes) -> bytes:
    """RSASSA-PKCS1-v1_5 with SHA-256, as Azure's virtual TPM signs."""
    size = signer.modulus.bit_length() // 8
    info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(message).digest()
    block = b"\x00\x01" + b"\xff" * (size - len(info) - 3) + b"\x00" + info
    return signer.raw(int.from_bytes(block, "big")).to_bytes(size, "big")
