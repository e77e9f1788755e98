"""A picture as the contract wants it: so many channels of so many rows and columns, in the column's range.

It comes as numbers (nested lists, an array, a base64 text of little-endian float32, an .npz of one array), which have
to stand in the contract's own shape and range; or as a PNG or a DICOM file, whose whole numbers are mapped to it. Of
what a DICOM file says beside its pixels some technical tags are read, and nothing of that is kept, told or logged.
No message repeats anything that a file holds.

The rules, all of them our own convention:
- A PNG's or a DICOM file's picture is shrunk by the area that falls on each of the contract's pixels. It is never made
  larger, nor stretched: its proportions may differ from the contract's by PROPORTIONS.
- A PNG's pixels run from `range`'s low end to its high end. Gamma and colour profiles are not looked at.
- A DICOM file's pixels are rescaled by its slope and intercept. Where the column's unit is "1" a window maps them to
  `range`: the column's own `window` (a LINEAR_EXACT one), else the first of the file's, else, of eight bits at most,
  all that they can hold; MONOCHROME1, where low is bright, is inverted. In any other unit the rescaled values stand as
  they are, of a file that has a slope and an intercept; in Hounsfield units, of one that says so or is a CT's, which is
  read in no other unit. Colours are neither rescaled nor windowed by their file. A file whose rescaling may stand
  in functional groups, an enhanced object, is not read.
"""

import io
import math
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import RecordError
from configs.spec import Column, ImageWindow
from features.packed import unpacked

Pixels = NDArray[np.float64]

MOST_PIXELS = 4096 * 4096
"""Of a picture of any size before it is shrunk: that of a mammogram or a chest radiograph at full resolution."""
PROPORTIONS = 1.1
"""How many times wider or higher than the contract's a picture may be, both at one size."""
LEAST_CONTRAST = 1e-3
"""Share of the range that a picture's lightest and darkest pixel lie apart at least, in some channel."""
HOUNSFIELD = "[hnsf'U]"
"""The Hounsfield unit in UCUM. A CT's file is in it unless it says otherwise (PS3.3, C.8.2.1)."""
ROWS_AT_ONCE = 256
"""Of a large picture, so that no more of it at a time is held as floats."""
FORMS = ("png", "dicom", "npz")
"""What a picture may come as beside numbers: `{"png": base64 text}`; inside this process bytes do as well."""
SUFFIXES = {".png": "png", ".dcm": "dicom", ".npz": "npz"}
DEFLATED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How an .npz may be packed, which is how numpy does: zipfile unpacks bzip2 and LZMA by the whole piece that it has
read, and 450 bytes of bzip2 were seen to take 550 MB."""
UNCOMPRESSED = {"1.2.840.10008.1.2": True, "1.2.840.10008.1.2.1": False}
"""DICOM's little-endian transfer syntaxes without compression, and whether their value types are implicit (PS3.5)."""
TAGS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "BurnedInAnnotation", "WindowCenter"),
    *("WindowWidth", "VOILUTFunction", "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence", "VOILUTSequence"),
    *("RescaleType", "Modality", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelData"),
)
"""All that is read of a DICOM file."""
OF_GREY = ("WindowCenter", "WindowWidth", "VOILUTSequence", "RescaleSlope", "RescaleIntercept")
"""Of these a colour file may have some, and they have no meaning there (PS3.3, C.11.2.1.2)."""


@dataclass(frozen=True)
class Raw:
    """A file's picture before it is mapped: whole numbers (channels, height, width), and how they are scaled: times
    `slope` plus `intercept` is the share of the column's range, cut off at its ends, or, if not `of_range`, the value
    in the column's own unit."""

    pixels: NDArray[Any]
    slope: float
    intercept: float
    of_range: bool = True


class _Refused(Exception):
    """What is wrong, as `code` and words without the column's name."""

    def __init__(self, code: str, said: str) -> None:
        super().__init__(said)
        self.code = code


def check(name: str, column: Column, value: Any) -> Pixels:
    """The picture's floats, (channels * height * width,), row by row, channel after channel; each one a float32.

    `value` is numbers in the shape (channels, height, width), (height, width, channels) or, of one channel, (height,
    width), as nested lists or an array; a base64 text of float32; or {"png" | "dicom" | "npz": base64 text or bytes}.
    An array (size,) is a picture that was checked before.
    Raises RecordError, naming the field, for a picture that cannot be read, or is not as the contract says.
    """
    try:
        return _judged(column, _picture(column, value)).reshape(-1)
    except _Refused as exc:
        raise RecordError(exc.code, name, f"{name}: {exc}") from None


def shape(column: Column) -> tuple[int, int, int]:
    """The contract's channels, height and width."""
    channels, height, width = column.shape
    return channels, height, width


def summary(pictures: Pixels | NDArray[np.float32]) -> Pixels:
    """Each picture's mean intensity, (n,), of (n, channels * height * width); NaN where it is missing."""
    return np.asarray(pictures.astype(np.float64).mean(axis=1))


def _picture(column: Column, value: Any) -> Pixels:
    """The pixels (channels, height, width) in the column's range, not judged yet."""
    if isinstance(value, Mapping):
        if len(value) != 1 or not set(value) <= set(FORMS):
            raise _Refused("malformed", "expected numbers, or one of {png}, {dicom}, {npz} and nothing else.")
        ((form, content),) = value.items()
        content = content if isinstance(content, bytes) else _decoded(content)
        if form == "npz":
            return _of_array(column, _npz(column, content))
        return _mapped(column, (_png if form == "png" else _dicom)(column, content))
    if isinstance(value, str):
        wanted = 4 * math.prod(shape(column))
        content = _decoded(value)
        if len(content) != wanted:
            raise _Refused("wrong_shape", f"{len(content)} bytes of float32; {wanted} are expected, {_asked(column)}.")
        return np.frombuffer(content, "<f4").astype(np.float64).reshape(shape(column))
    if isinstance(value, np.ndarray) and value.dtype == object:  # a table's list of lists
        value = _unboxed(value)
    if isinstance(value, np.ndarray):
        found = value.reshape(shape(column)) if value.shape == (math.prod(shape(column)),) else value
        return _of_array(column, found)
    if isinstance(value, list | tuple):
        return _of_array(column, _of_lists(column, value))
    raise _Refused(
        "not_an_image", f"a {type(value).__name__} is no picture: numbers, {{png}}, {{dicom}} or {{npz}} is."
    )


def _judged(column: Column, pixels: Pixels) -> Pixels:
    """The pixels as float32 can hold them, if they are finite, within range and not all alike."""
    with np.errstate(over="ignore"):
        rounded = pixels.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise _Refused("not_finite", f"{int((~np.isfinite(rounded)).sum())} of its numbers are not finite.")
    assert column.range is not None  # the Spec demands it of a picture
    low, high = np.float32(column.range[0]), np.float32(column.range[1])
    if outside := int(((rounded < low) | (rounded > high)).sum()):
        said = f"{outside} of its numbers lie outside {low:g} to {high:g} {column.unit}, the range of its pixels."
        raise _Refused("out_of_range", said)
    found = rounded.astype(np.float64) + 0.0  # minus zero becomes zero: equal values have equal bits
    if float(np.ptp(found, axis=(1, 2)).max()) < LEAST_CONTRAST * float(high - low):
        raise _Refused("blank_image", "has no contrast: all its pixels are alike, as of a picture that failed.")
    return found


def _asked(column: Column) -> str:
    channels, height, width = shape(column)
    return f"{channels} {'channel' if channels == 1 else 'channels'} of {height} rows of {width}"


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        raise _Refused("not_an_image", f"a base64 text is expected, not a {type(text).__name__}.")
    content = unpacked(text)
    if content is None:
        raise _Refused("not_an_image", f"a text of {len(text)} characters is not base64.")
    return content


def _of_array(column: Column, found: NDArray[Any]) -> Pixels:
    """An array in the contract's own shape as (channels, height, width). Nothing is resized: it holds measurements."""
    wanted = channels, height, width = shape(column)
    if found.dtype.kind not in "fiu":
        raise _Refused("not_an_image", f"an array of {found.dtype.name} holds no numbers.")
    if found.shape == wanted:
        return found.astype(np.float64)
    if found.shape == (height, width, channels):
        return found.transpose(2, 0, 1).astype(np.float64)
    if channels == 1 and found.shape == (height, width):
        return found[None].astype(np.float64)
    told = " x ".join(map(str, found.shape)) or "one number"
    other = found.ndim in (2, 3) and (height, width) in (found.shape[:2], found.shape[-2:])
    code = "wrong_channels" if other else "wrong_shape"
    raise _Refused(code, f"has the shape {told}; expected is {_asked(column)}. Resize it before it is sent.")


def _unboxed(value: Any) -> Any:
    return [_unboxed(row) for row in value] if isinstance(value, np.ndarray) else value


def _of_lists(column: Column, value: Any) -> NDArray[Any]:
    """Nested lists of numbers as an array. No more of them is unfolded than the contract's picture holds."""
    most, dimensions, level = math.prod(shape(column)), list[int](), list(value)
    while level and isinstance(level[0], list | tuple):
        lengths = {len(row) if isinstance(row, list | tuple) else -1 for row in level}
        dimensions.append(len(level) // math.prod(dimensions))
        if len(lengths) > 1 or len(dimensions) > 2:
            raise _Refused("wrong_shape", f"its lists are no picture; expected is {_asked(column)}.")
        if len(level) * lengths.pop() > most:
            raise _Refused("wrong_shape", f"holds more than {most} numbers; expected is {_asked(column)}.")
        level = list(chain.from_iterable(level))
    dimensions.append(len(level) // math.prod(dimensions))
    if other := set(map(type, level)) - {int, float}:
        raise _Refused("not_an_image", f"holds a {min(kind.__name__ for kind in other)} where a number is expected.")
    try:
        return np.array(level, np.float64).reshape(dimensions)
    except OverflowError:
        raise _Refused("not_finite", "one of its numbers is not finite.") from None


def _npz(column: Column, content: bytes) -> NDArray[Any]:
    """The one array of an .npz, whose header is read before anything is unpacked. Nothing is ever unpickled."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            (member,) = archive.infolist()
            if member.compress_type not in DEFLATED:
                raise _Refused("not_an_image", "its array is packed in another way than numpy packs one.")
            with archive.open(member) as stream:
                if np.lib.format.read_magic(stream) != (1, 0):  # a later one's header may be of 4 GB
                    raise _Refused("not_an_image", "its array's header is not of version 1.0, which numpy writes.")
                dimensions, by_columns, kind = np.lib.format.read_array_header_1_0(stream)
                beyond = math.prod(dimensions) > math.prod(shape(column)) or min(dimensions, default=0) < 0
                if kind.kind not in "fiu" or beyond:
                    told = " x ".join(map(str, dimensions))
                    raise _Refused(
                        "wrong_shape", f"holds an array of {kind.name}, {told}; expected is {_asked(column)}, numbers."
                    )
                wanted = math.prod(dimensions) * kind.itemsize
                found = stream.read(wanted + 1)
    except _Refused:
        raise
    except Exception:  # a damaged archive raises a dozen errors, some with what it holds in their words
        raise _Refused("not_an_image", f"{len(content)} bytes are no .npz of one array.") from None
    if len(found) != wanted:
        raise _Refused("not_an_image", f"its array has not the {wanted} bytes that its header promises.")
    return np.frombuffer(found, kind).reshape(dimensions, order="F" if by_columns else "C")


def _png(column: Column, content: bytes) -> Raw:
    """A PNG's pixels. Its header is read by itself first, so that nothing large is unpacked."""
    from PIL import Image

    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR":
        raise _Refused("not_an_image", f"{len(content)} bytes are no PNG.")
    width, height = (int.from_bytes(content[place : place + 4]) for place in (16, 20))
    depth, colour = content[24:26]
    _size(column, height, width)
    if colour in (4, 6):
        raise _Refused("wrong_channels", f"has a channel of transparency; expected is {_asked(column)}.")
    channels = 1 if colour == 0 else 3
    if channels != shape(column)[0]:
        raise _Refused("wrong_channels", f"is a PNG of {_channels(channels)}; expected is {_asked(column)}.")
    if depth == 16 and channels == 3:
        raise _Refused("not_an_image", "is a PNG of 16 bits a colour, which is not read; write it with 8.")
    _in_unit_one(column, "PNG")
    try:
        # Its warnings' words may hold what the file holds.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.size != (width, height):  # by a second header, further on
                raise _Refused("not_an_image", "has two headers that differ in its size.")
            if getattr(image, "n_frames", 1) > 1:
                raise _Refused("several_frames", "holds several frames; one picture is expected.")
            if "transparency" in image.info:
                raise _Refused("wrong_channels", f"has a transparent colour; expected is {_asked(column)}.")
            pixels = np.asarray(image.convert("L" if image.mode == "1" else "RGB") if image.mode in "1P" else image)
    except _Refused:
        raise
    except Exception:
        raise _Refused("not_an_image", f"{len(content)} bytes are no PNG that can be read to its end.") from None
    return Raw(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), 1 / (65535 if depth == 16 else 255), 0)


def _dicom(column: Column, content: bytes) -> Raw:
    """A DICOM file's pixels, rescaled, with the ends that its window gives them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's quote the header
            tags = _tags(content)
            return _rescaled(column, tags)
    except _Refused:
        raise
    except Exception:  # pydicom's errors quote the header too
        raise _Refused("not_an_image", f"{len(content)} bytes are no DICOM picture that can be read.") from None


def _tags(content: bytes) -> dict[str, Any]:
    """The technical tags that the file has, and no others; the rest of its header is passed over.

    Not by pydicom's `dcmread`: it unpacks a deflated file whole before anything can be asked.
    """
    from pydicom import config
    from pydicom.filereader import read_dataset
    from pydicom.tag import BaseTag, Tag

    # pydicom's log and its warnings quote the values that they find odd, and any of them may be the patient's name.
    # For good and not for this call alone: another thread may be reading at the same time.
    config.settings.reading_validation_mode = config.IGNORE
    config.logger.disabled = True
    if content[128:132] != b"DICM":
        raise _Refused("not_an_image", f"{len(content)} bytes are no DICOM file.")
    stream = io.BytesIO(content)
    stream.seek(132)

    def past_meta(tag: BaseTag, vr: str | None, length: int) -> bool:  # noqa: ARG001  # pydicom's signature
        return bool(tag.group != 2)

    meta = read_dataset(stream, False, True, stop_when=past_meta, specific_tags=[Tag("TransferSyntaxUID")])
    syntax = str(meta.get("TransferSyntaxUID"))
    if syntax not in UNCOMPRESSED:
        said = "its pixels are compressed, or its bytes run the other way; explicit VR little endian is read."
        raise _Refused("not_an_image", said)
    found = read_dataset(stream, UNCOMPRESSED[syntax], True, specific_tags=[Tag(keyword) for keyword in TAGS])
    return {keyword: found.get(keyword) for keyword in TAGS}


def _rescaled(column: Column, tags: Mapping[str, Any]) -> Raw:
    if str(tags["BurnedInAnnotation"] or "").strip().upper() == "YES":
        raise _Refused("burned_in", "its file says that texts are burned into the pixels, which may name the patient.")
    rows, columns, samples = (int(tags[key]) for key in ("Rows", "Columns", "SamplesPerPixel"))
    frames = int(tags["NumberOfFrames"] or 1)
    _size(column, rows, columns, frames)
    if frames > 1:
        raise _Refused("several_frames", "holds several frames; one picture is expected.")
    if samples != shape(column)[0]:
        raise _Refused("wrong_channels", f"has {_channels(samples)}; expected is {_asked(column)}.")
    photometric = str(tags["PhotometricInterpretation"]).strip()
    if photometric not in (("MONOCHROME1", "MONOCHROME2") if samples == 1 else ("RGB",)):
        raise _Refused("not_an_image", "its pixels are neither MONOCHROME1, MONOCHROME2 nor RGB.")
    if tags["ModalityLUTSequence"]:
        raise _Refused(
            "not_an_image", "its values come by a table and not by a slope and an intercept; it is not read."
        )
    if tags["SharedFunctionalGroupsSequence"] or tags["PerFrameFunctionalGroupsSequence"]:
        raise _Refused(
            "not_an_image", "its rescaling stands in functional groups, as of an enhanced object, which are not read."
        )
    if samples > 1:
        tags = {**tags, **dict.fromkeys(OF_GREY)}
    half = (tags["RescaleSlope"] is None) != (tags["RescaleIntercept"] is None)
    ct = str(tags["Modality"] or "").strip().upper() == "CT"
    if half or (ct and column.window is not None and tags["RescaleSlope"] is None):  # a CT's window is in its units
        raise _Refused("unit", "has no slope or no intercept: what its values mean is unknown.")
    stored = _stored(tags, (rows, columns, samples))
    slope, intercept = (
        (1.0 if tags["RescaleSlope"] is None else float(tags["RescaleSlope"])),
        float(tags["RescaleIntercept"] or 0),
    )
    if not (math.isfinite(slope) and slope != 0 and math.isfinite(intercept)):
        raise _Refused("not_an_image", "its slope and intercept are no numbers to rescale by.")
    if column.unit != "1":
        _in_unit(column, tags)
        return Raw(stored, slope, intercept, of_range=False)
    start, end = _window(column, tags) or _all_of_eight_bits(tags, slope, intercept)
    if photometric == "MONOCHROME1":
        start, end = end, start
    return Raw(stored, slope / (end - start), (intercept - start) / (end - start))


def _stored(tags: Mapping[str, Any], size: tuple[int, int, int]) -> NDArray[Any]:
    """The stored whole numbers, (channels, height, width) (PS3.5, section 8)."""
    rows, columns, samples = size
    allocated, bits, high, signed = (
        int(tags[key]) for key in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    )
    content = tags["PixelData"]
    if allocated not in (8, 16, 32) or not 0 < bits <= allocated or high != bits - 1 or signed not in (0, 1):
        raise _Refused("not_an_image", "its pixels are not of 8, 16 or 32 bits that begin at the lowest.")
    count = rows * columns * samples
    wanted = count * allocated // 8
    if len(content) not in (wanted, wanted + wanted % 2):
        raise _Refused("not_an_image", f"its pixels are not the {wanted} bytes that its header promises.")
    numbers = np.frombuffer(content, f"<{'i' if signed else 'u'}{allocated // 8}", count)
    spare = numbers.dtype.type(allocated - bits)  # above the stored bits old files keep drawings
    numbers = (numbers << spare) >> spare
    if int(tags["PlanarConfiguration"] or 0) == 1:
        return np.asarray(numbers.reshape(samples, rows, columns))
    return np.asarray(numbers.reshape(rows, columns, samples).transpose(2, 0, 1))


def _window(column: Column, tags: Mapping[str, Any]) -> tuple[float, float] | None:
    """The values that the window makes the darkest and the lightest (PS3.3, C.11.2.1.2.1 and C.11.2.1.3.2)."""
    if isinstance(column.window, ImageWindow):
        centre, width, exact = column.window.center, column.window.width, True
    else:
        if tags["VOILUTSequence"] and tags["WindowCenter"] is None:
            raise _Refused("no_window", "its window is a table, which is not read; write a `window` in the contract.")
        if tags["WindowCenter"] is None or tags["WindowWidth"] is None:
            return None
        centre, width = (float(np.atleast_1d(tags[key])[0]) for key in ("WindowCenter", "WindowWidth"))
        function = str(tags["VOILUTFunction"] or "LINEAR").strip()
        if function not in ("LINEAR", "LINEAR_EXACT"):
            raise _Refused("no_window", "its window is not linear; write a `window` in the contract.")
        exact = function == "LINEAR_EXACT"
    centre, width = (centre, width) if exact else (centre - 0.5, width - 1)
    if not width > 0:
        raise _Refused("no_window", "its window is of no width; write a `window` in the contract.")
    return centre - width / 2, centre + width / 2


def _all_of_eight_bits(tags: Mapping[str, Any], slope: float, intercept: float) -> tuple[float, float]:
    bits, signed = int(tags["BitsStored"]), int(tags["PixelRepresentation"])
    if bits > 8:
        raise _Refused(
            "no_window", f"its file has no window, and {bits} bits need one; write a `window` in the contract."
        )
    low = -(2 ** (bits - 1)) if signed else 0
    first, last = (end * slope + intercept for end in (low, low + 2**bits - 1))
    return min(first, last), max(first, last)


def _size(column: Column, height: int, width: int, frames: int = 1) -> None:
    """Refuse a picture by its header's size, before it is unpacked."""
    _, rows, columns = shape(column)
    if height * width * frames > MOST_PIXELS:
        megapixels = height * width * frames / 1e6
        said = f"its header says {megapixels:.0f} megapixels; at most {MOST_PIXELS / 1e6:.0f} are read."
        raise _Refused("too_large", said)
    if height < rows or width < columns:
        raise _Refused(
            "too_small",
            f"has {height} rows of {width}, fewer than {_asked(column)}: what it does not show is not made up.",
        )
    if not 1 / PROPORTIONS <= (height / width) / (rows / columns) <= PROPORTIONS:
        raise _Refused(
            "wrong_proportions",
            f"has {height} rows of {width}, {_asked(column)} are expected; cut it to these proportions. It is not "
            "stretched.",
        )


def _in_unit(column: Column, tags: Mapping[str, Any]) -> None:
    """Refuse a DICOM file that does not say what its rescaled values are, or that they are others (PS3.3, C.11.1)."""
    if tags["RescaleSlope"] is None or tags["RescaleIntercept"] is None:
        raise _Refused("unit", f"has no slope or no intercept: what it holds in {column.unit} is unknown.")
    said = str(tags["RescaleType"] or "").strip().upper()
    modality = str(tags["Modality"] or "").strip().upper()
    hounsfield = said == "HU" or (not said and modality == "CT")
    if column.unit == HOUNSFIELD and not hounsfield:
        raise _Refused("unit", "is neither a CT's picture nor says that its values are Hounsfield units.")
    if column.unit != HOUNSFIELD and hounsfield:
        raise _Refused("unit", f"its values are Hounsfield units, and the contract's are {column.unit}.")


def _in_unit_one(column: Column, what: str) -> None:
    if column.unit != "1":
        raise _Refused("not_an_image", f"a {what} tells no {column.unit}; numbers or a DICOM file are expected.")


def _channels(count: int) -> str:
    return f"{count} {'channel' if count == 1 else 'channels'}"


def _mapped(column: Column, raw: Raw) -> Pixels:
    """A file's whole numbers, shrunk to the contract's size and in its range."""
    channels, height, width = shape(column)
    found = np.empty((channels, height, width))
    for channel, pixels in enumerate(raw.pixels):
        strips = []
        for start in range(0, len(pixels), ROWS_AT_ONCE):
            values = pixels[start : start + ROWS_AT_ONCE] * raw.slope + raw.intercept
            strips.append(_shrunk((np.clip(values, 0, 1) if raw.of_range else values).T, width).T)
        found[channel] = _shrunk(np.vstack(strips), height)
    if not raw.of_range:
        return found
    assert column.range is not None  # the Spec demands it of a picture
    low, high = column.range
    return np.clip(low + found * (high - low), low, high)


def _shrunk(rows: Pixels, count: int) -> Pixels:
    """`count` means (count, w) of the rows (n, w) that fall on each, parts of rows counted as parts; count <= n.

    By sums that run down the rows, so that the bits do not depend on how a library multiplies matrices.
    """
    n = len(rows)
    if count == n:
        return rows
    sums = np.vstack([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    ends = np.arange(count + 1) * n / count
    whole = np.minimum(ends.astype(np.int64), n - 1)
    at_ends = sums[whole] + (ends - whole)[:, None] * rows[whole]
    return np.asarray(np.diff(at_ends, axis=0) * (count / n))
