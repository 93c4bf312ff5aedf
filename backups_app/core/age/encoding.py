"""Base64 with one spelling for each content (RFC 4648, section 3.5).

Python's decoder takes several spellings of the same bytes. Here only the one that our own
encoder would write is taken, so that no byte of a header can change unseen.
"""

from __future__ import annotations

import binascii


def encode_padded(content: bytes) -> bytes:
    """Standard base64 with ``=`` at the end, in one line."""
    return binascii.b2a_base64(content, newline=False)


def decode_padded(text: bytes) -> bytes:
    """The content of canonical base64.

    Raises:
        ValueError: any other spelling, or no base64 at all.
    """
    content = binascii.a2b_base64(text, strict_mode=True)
    if encode_padded(content) != text:
        raise ValueError("the base64 is not canonical")
    return content


def encode(content: bytes) -> bytes:
    """Standard base64 without padding, in one line."""
    return encode_padded(content).rstrip(b"=")


def decode(text: bytes) -> bytes:
    """The content of canonical base64 without padding.

    Raises:
        ValueError: any other spelling, padding included, or no base64 at all.
    """
    if b"=" in text:
        raise ValueError("the base64 is padded")
    return decode_padded(text + b"=" * (-len(text) % 4))
