"""Bech32, the spelling of age keys (BIP 173, without its limit on the length).

A string is a human-readable prefix, ``1``, the data five bits per character, and a checksum of
six characters that finds any four wrong ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_CHARACTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES = {character: value for value, character in enumerate(_CHARACTERS)}
_CHECKSUM_CHARACTERS = 6
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def encode(prefix: str, content: bytes) -> str:
    """``content`` under a lower-case ``prefix``, in lower case."""
    values = list(_regroup(content, from_bits=8, to_bits=5))
    remainder = _polymod([*_expanded(prefix), *values, *[0] * _CHECKSUM_CHARACTERS]) ^ 1
    checksum = [(remainder >> shift) & 31 for shift in range(25, -1, -5)]
    return f"{prefix}1{''.join(_CHARACTERS[value] for value in values + checksum)}"


def decode(text: str) -> tuple[str, bytes]:
    """Prefix and content of a string; the prefix keeps its case.

    Raises:
        ValueError: mixed case, a foreign character, a wrong checksum, bits left over. The message
            never holds the string.
    """
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("it holds a character that no key has")
    lower = text.lower()
    if text not in (lower, text.upper()):
        raise ValueError("upper and lower case are mixed")
    prefix, separator, data = lower.rpartition("1")
    if not separator or not prefix or len(data) < _CHECKSUM_CHARACTERS:
        raise ValueError("it is too short")
    if not _VALUES.keys() >= set(data):
        raise ValueError("it holds a character that no key has")
    values = [_VALUES[character] for character in data]
    if _polymod([*_expanded(prefix), *values]) != 1:
        raise ValueError("its checksum is wrong")
    return text[: len(prefix)], _content(values[:-_CHECKSUM_CHARACTERS])


def _content(values: list[int]) -> bytes:
    content = bytes(_regroup(values, from_bits=5, to_bits=8))[: len(values) * 5 // 8]
    if list(_regroup(content, from_bits=8, to_bits=5)) != values:
        raise ValueError("it has bits left over")
    return content


def _regroup(values: Iterable[int], *, from_bits: int, to_bits: int) -> Iterator[int]:
    """The same bits in groups of another size; the last group is filled with zeros."""
    pending = bits = 0
    for value in values:
        pending = (pending << from_bits) | value
        bits += from_bits
        while bits >= to_bits:
            bits -= to_bits
            yield pending >> bits
            pending &= (1 << bits) - 1
    if bits:
        yield pending << (to_bits - bits)


def _expanded(prefix: str) -> list[int]:
    codes = prefix.encode("ascii")
    return [*(code >> 5 for code in codes), 0, *(code & 31 for code in codes)]


def _polymod(values: Iterable[int]) -> int:
    remainder = 1
    for value in values:
        top = remainder >> 25
        remainder = (remainder & 0x1FFFFFF) << 5 ^ value
        for bit, factor in enumerate(_GENERATOR):
            if top >> bit & 1:
                remainder ^= factor
    return remainder
