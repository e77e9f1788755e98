"""An array as a .npy file, without numpy: whatever has its numbers in memory (numpy's arrays do) can be sent."""

import sys
from typing import Any

from client.errors import ClientError

DTYPES = {"e": "f2", "f": "f4", "d": "f8", "B": "u1", "H": "u2", "h": "i2", "i": "i4"}
"""The kinds of numbers that the service reads, by their letter in Python's struct."""
ALIGNED = 64
"""Source: numpy.lib.format, version 1.0: the numbers begin at a multiple of 64 bytes."""


def saved(array: Any) -> bytes:
    """The array's numbers as a .npy file, row-major. Raises ClientError for what is no array of such numbers."""
    try:
        view = memoryview(array)
    except (TypeError, ValueError):  # the latter: of numpy's dates
        raise ClientError(f"array: a {type(array).__name__} is none; numpy.asarray(…) makes one of a list.") from None
    order, letter = (view.format[0], view.format[1:]) if view.format[:1] in tuple("<>=@") else ("@", view.format)
    if letter not in DTYPES:
        raise ClientError(f"array: numbers of kind {view.format!r} are not read; float32 is, and int16.")
    native = "<" if sys.byteorder == "little" else ">"
    descr = f"{order if order in '<>' else native}{DTYPES[letter]}"
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {tuple(view.shape or ())!r}, }}"
    filled = header.encode().ljust(-(-(len(header) + 11) // ALIGNED) * ALIGNED - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(filled).to_bytes(2, "little") + filled + view.tobytes("C")
