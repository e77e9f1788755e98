"""Bytes in a JSON text, as base64."""

import msgspec


def unpacked(text: str) -> bytes | None:
    """The bytes of a base64 text with its padding and nothing else in it; None if it is none.

    By msgspec: four times as fast as Python's own, which takes longer for a recording than all its checks.
    """
    try:
        return msgspec.convert(text, bytes)
    except (msgspec.ValidationError, UnicodeEncodeError):  # the latter: half of a surrogate pair
        return None
