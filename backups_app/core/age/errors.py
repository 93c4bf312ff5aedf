"""How an age file can fail, one class for each layer that says no.

Damage is a :class:`VerificationError`, a key that does not fit a :class:`KeyMissingError`, so
that callers who do not care for the layer need not know these classes.
"""

from __future__ import annotations

from ..errors import KeyMissingError, VerificationError

_OTHER_COPY = "Use another copy, or an older verified backup."


class ArmorError(VerificationError):
    """The text form (ASCII armor) around the file is not what the format demands."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The armored age file is damaged: {why}.", _OTHER_COPY)


class HeaderError(VerificationError):
    """The header is not what the format demands."""

    def __init__(self, why: str, hint: str = _OTHER_COPY) -> None:
        super().__init__(f"The header of the age file is not valid: {why}.", hint)


class HmacError(VerificationError):
    """The header is well formed, but it is not the one that was written with this file key."""

    def __init__(self) -> None:
        super().__init__("The header of the age file was altered: its MAC does not match.", _OTHER_COPY)


class PayloadError(VerificationError):
    """The encrypted content was altered, cut off or extended."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The encrypted content is damaged: {why}.", _OTHER_COPY)


class NoMatchError(KeyMissingError):
    """No identity given opens the file.

    Damage to the part of the header that wraps the key looks the same: compare the digest of the
    stored bytes before blaming the key.
    """

    def __init__(self, message: str = "No given identity opens this age file.", hint: str = "") -> None:
        super().__init__(message, hint or "Give the identity that belongs to a recipient it was encrypted for.")
