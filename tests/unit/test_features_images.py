"""Pictures: what comes of a PNG, a DICOM file, an array, and which ones are refused, with words that tell nobody."""

import base64
import io
import struct
import zipfile
import zlib

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageFile
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.uid import ImplicitVRLittleEndian, JPEGBaseline8Bit

from configs.errors import RecordError
from configs.spec import Column
from features import images
from features.columns import kept_signal
from tests.pictures import NAME, dicom

RAMP = np.arange(16, dtype=np.float64).reshape(4, 4) / 15


def column(**changes):
    given = {"type": "image", "channels": 1, "height": 4, "width": 4, "unit": "1", "range": [0, 1], "required": True}
    return Column.model_validate({**given, **changes})


GREY = column()
COLOUR = column(channels=3)
HOUNSFIELD = column(unit="[hnsf'U]", range=[-1024, 3071])


def check(value, of=GREY):
    return images.check("xray", of, value).reshape(images.shape(of))


def refused(value, of=GREY):
    with pytest.raises(RecordError) as caught:
        images.check("xray", of, value)
    assert caught.value.field == "xray"
    assert str(caught.value).startswith("xray: ")
    assert NAME not in str(caught.value)
    return caught.value.code, str(caught.value).removeprefix("xray: ")


def png(pixels, **written):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **written)
    return file.getvalue()


def npz(*found, **named):
    file = io.BytesIO()
    np.savez_compressed(file, *found, **named)
    return file.getvalue()


def text(content):
    return base64.b64encode(content).decode()


# Numbers


def test_numbers_stand_as_they_are_row_by_row_and_channel_after_channel():
    rows = [[[float(100 * c + 4 * y + x) / 400 for x in range(4)] for y in range(4)] for c in range(3)]
    found = images.check("xray", COLOUR, rows)
    assert found.shape == (48,)
    assert_allclose(found, np.array(rows).reshape(-1), rtol=1e-7)


def test_channels_may_come_last_and_a_single_one_may_be_left_out():
    colour = np.arange(48).reshape(3, 4, 4) / 48
    assert_array_equal(check(colour.transpose(1, 2, 0).tolist(), COLOUR), check(colour, COLOUR))
    assert_array_equal(check(RAMP.tolist()), check(RAMP[None]))
    assert_array_equal(check(RAMP[:, :, None]), check(RAMP))


def test_lists_arrays_base64_and_npz_of_the_same_picture_are_the_same_bits():
    expected = RAMP.astype(np.float32).astype(np.float64)
    forms = [
        RAMP.tolist(),
        RAMP,
        RAMP.astype(np.float32).reshape(-1),
        text(RAMP.astype("<f4").tobytes()),
        {"npz": npz(RAMP)},
        {"npz": text(npz(picture=RAMP.astype(np.float32)))},
        {"npz": npz(np.asfortranarray(RAMP))},
    ]
    for form in forms:
        assert_array_equal(check(form)[0], expected)


@given(arrays(np.float32, (4, 4), elements=st.floats(0, 1, width=32)))
def test_what_is_kept_of_a_picture_is_read_again_to_the_same_bits(pixels):
    pixels[0, 0], pixels[0, 1] = 0, 1
    first = images.check("xray", GREY, pixels)
    on_record = kept_signal(GREY, pixels, first)
    assert images.check("xray", GREY, text(on_record)).tobytes() == first.tobytes()


def test_of_an_integer_too_large_for_a_float_the_picture_is_refused():
    assert refused([[10**400, 0, 0, 0]] * 4)[0] == "not_finite"


@pytest.mark.parametrize(
    ("value", "code", "said"),
    [
        (np.where(RAMP > 0.5, np.nan, RAMP), "not_finite", "8 of its numbers are not finite."),
        (RAMP * 2, "out_of_range", "8 of its numbers lie outside 0 to 1 1, the range"),
        (np.full((4, 4), 0.5), "blank_image", "has no contrast: all its pixels"),
        (RAMP[:3], "wrong_shape", "has the shape 3 x 4; expected is 1"),
        (np.zeros((1, 1)), "wrong_shape", "has the shape 1 x 1; expected is 1"),
        (np.zeros((3, 4, 4)), "wrong_channels", "has the shape 3 x 4 x 4; expected is 1"),
        (np.zeros((4, 4), bool), "not_an_image", "an array of bool holds no numbers."),
        ([*RAMP.tolist()[:3], [0.5] * 3], "wrong_shape", "its lists are no picture; expected is 1"),
        ([[0.5] * 5] * 4, "wrong_shape", "holds more than 16 numbers; expected is 1"),
        ([["0.5"] * 4] * 4, "not_an_image", "holds a str where a number is expected."),
        ([[True, False, 1, 0]] * 4, "not_an_image", "holds a bool where a number is expected."),
        ([], "wrong_shape", "has the shape 0; expected is 1"),
        ([[[[0.5]]]], "wrong_shape", "its lists are no picture; expected is 1"),
        (text(b"\0" * 63), "wrong_shape", "63 bytes of float32; 64 are expected, 1 channel of 4 rows of 4."),
        (NAME, "not_an_image", "a text of 21 characters is not base64."),
        (7, "not_an_image", "a int is no picture: numbers, {png}, {dicom} or {npz} is."),
        ({"jpeg": ""}, "malformed", "expected numbers, or one of {png}, {dicom}, {npz} and nothing else."),
        ({"png": "", "npz": ""}, "malformed", "expected numbers, or one of {png}, {dicom}, {npz} and nothing else."),
        ({"png": 7}, "not_an_image", "a base64 text is expected, not a int."),
    ],
)  # fmt: skip
def test_a_picture_of_numbers_that_is_none_is_refused(value, code, said):
    found = refused(value)
    assert found[0] == code
    assert found[1].startswith(said)


def test_the_range_is_judged_as_float32_holds_it():
    narrow = column(range=[0, 0.1])  # 0.1 in float32 lies above 0.1
    assert check(RAMP / 10, narrow).max() == np.float32(0.1)


# .npz


def bomb(dimensions, kind="<f8"):
    """An .npz whose header promises an array of these dimensions, and whose 8 bytes are all that it holds."""
    header = str({"descr": kind, "fortran_order": False, "shape": dimensions}).encode()
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 8
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("picture.npy", member)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (bomb((20_000, 10_000)), "wrong_shape", "holds an array of float64, 20000 x 10000; expected is 1"),
        (bomb((4, 4), "|O"), "wrong_shape", "holds an array of object, 4 x 4; expected is 1"),
        (bomb((4, 4)), "not_an_image", "its array has not the 128 bytes that its header promises."),
        (bomb((2, -8)), "wrong_shape", ""),
        (npz(RAMP, RAMP), "not_an_image", ""),
        (npz(RAMP)[:-40], "not_an_image", ""),
        (b"PK" + NAME.encode(), "not_an_image", "23 bytes are no .npz of one array."),
    ],
)  # fmt: skip
def test_an_npz_that_holds_no_such_picture_is_refused_before_it_is_unpacked(content, code, said):
    found = refused({"npz": content})
    assert found[0] == code
    assert found[1].startswith(said)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_npz_packed_as_numpy_packs_none_is_refused_before_it_is_unpacked(method, monkeypatch):
    with zipfile.ZipFile(io.BytesIO(npz(RAMP))) as found, zipfile.ZipFile(file := io.BytesIO(), "w", method) as packed:
        packed.writestr("picture.npy", found.read(found.namelist()[0]))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("it was opened"))

    assert refused({"npz": file.getvalue()})[1] == "its array is packed in another way than numpy packs one."


# PNG


def test_a_png_runs_from_the_lowest_to_the_highest_of_the_range():
    eight = np.arange(0, 256, 17, dtype=np.uint8).reshape(4, 4)
    assert_allclose(check({"png": png(eight)})[0], RAMP, atol=1e-7)
    assert_allclose(check({"png": text(png(eight))}, column(range=[-1, 1]))[0], 2 * RAMP - 1, atol=1e-7)
    sixteen = np.arange(0, 65536, 4369, dtype=np.uint16).reshape(4, 4)
    assert_allclose(check({"png": png(sixteen)})[0], RAMP, atol=1e-7)
    two = np.array([[0, 1, 1, 0]] * 4, bool)
    assert_array_equal(check({"png": png(two)})[0], two)


def test_a_png_in_colour_has_its_channels_first_and_a_palette_is_read_as_colours():
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[:, :, 0], colours[0, :, 2] = 255, 51
    expected = colours.transpose(2, 0, 1) / 255
    assert_allclose(check({"png": png(colours)}, COLOUR), expected, atol=1e-7)
    palette = Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE)
    file = io.BytesIO()
    palette.save(file, "PNG")
    assert_allclose(check({"png": file.getvalue()}, COLOUR), expected, atol=1e-7)


def test_a_larger_picture_is_shrunk_by_area_and_no_light_is_lost():
    dice = np.random.default_rng(1)
    large = dice.integers(0, 256, (11, 10)).astype(np.uint8)
    found = check({"png": png(large)})[0]
    assert_allclose(found.mean(), large.mean() / 255, atol=1e-6)
    by_hand = np.kron(large / 255, np.ones((4, 4))).reshape(4, 11, 4, 10).mean(axis=(1, 3))
    assert_allclose(found, by_hand, atol=1e-6)


def test_a_picture_of_many_strips_is_shrunk_like_one(monkeypatch):
    large = np.random.default_rng(2).integers(0, 256, (600, 600)).astype(np.uint8)
    at_once = check({"png": png(large)})
    monkeypatch.setattr(images, "ROWS_AT_ONCE", 7)
    assert_array_equal(check({"png": png(large)}), at_once)


def header_of(width, height, depth=8, colour=0):
    """A PNG that is a header and nothing else."""
    said = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + said + struct.pack(">I", zlib.crc32(said))


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (header_of(20_000, 10_000), "too_large", "its header says 200 megapixels; at most 17 are read."),
        (header_of(2**31 - 1, 2**31 - 1), "too_large", ""),
        (header_of(1, 1), "too_small", "has 1 rows of 1, fewer than 1"),
        (header_of(8, 4), "wrong_proportions", "has 4 rows of 8, 1 channel of 4 rows of 4 are expected; cut it"),
        (header_of(4, 4, colour=2), "wrong_channels", "is a PNG of 3 channels; expected is 1"),
        (header_of(4, 4, colour=6), "wrong_channels", "has a channel of transparency; expected is 1"),
        (header_of(4, 4), "not_an_image", "33 bytes are no PNG that can be read to its end."),
        (png(np.arange(0, 256, 17, dtype=np.uint8).reshape(4, 4))[:-30], "not_an_image", ""),
        (b"GIF89a" + NAME.encode(), "not_an_image", "27 bytes are no PNG."),
        (b"", "not_an_image", "0 bytes are no PNG."),
    ],
)  # fmt: skip
def test_a_png_that_is_no_such_picture_is_refused(content, code, said):
    found = refused({"png": content})
    assert found[0] == code
    assert found[1].startswith(said)


def test_a_png_with_a_second_header_of_another_size_is_refused_before_it_is_unpacked(monkeypatch, recwarn):
    content = png(np.arange(0, 256, 17, dtype=np.uint8).reshape(4, 4))
    within = 8 + 4 + 4 + 13 + 4  # the signature, and the first header with its length, its name and its sum
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("it was unpacked"))

    found = refused({"png": content[:within] + header_of(12_000, 12_000)[8:] + content[within:]})

    assert found == ("not_an_image", "has two headers that differ in its size.")
    assert not recwarn.list


def test_a_png_of_several_frames_of_16_bit_colours_or_with_a_clear_colour_is_refused():
    frames = [Image.fromarray(np.full((4, 4), level, np.uint8)) for level in (0, 255)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    assert refused({"png": file.getvalue()})[0] == "several_frames"
    assert refused({"png": header_of(4, 4, 16, 2)}, COLOUR)[0] == "not_an_image"
    assert refused({"png": png(np.arange(16, dtype=np.uint8).reshape(4, 4), transparency=3)})[0] == "wrong_channels"


def test_a_png_tells_no_hounsfield_units():
    assert refused({"png": png(np.zeros((4, 4), np.uint8))}, HOUNSFIELD)[0] == "not_an_image"


# DICOM

STORED = np.arange(16).reshape(4, 4) * 100


def test_a_window_maps_the_rescaled_values_to_the_range():
    content = dicom(STORED, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=500.5, WindowWidth=1001)
    assert_allclose(check({"dicom": content})[0], np.clip((STORED * 2 - 1000) / 1000, 0, 1), atol=1e-7)
    exact = dicom(STORED, WindowCenter=500, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")
    assert_allclose(check({"dicom": exact})[0], np.clip(STORED / 1000, 0, 1), atol=1e-7)


def test_the_contracts_window_goes_before_the_files_own_and_of_several_the_first_counts():
    content = dicom(STORED, WindowCenter=[500.5, 9], WindowWidth=[1001, 2])
    assert_allclose(check({"dicom": content})[0], np.clip(STORED / 1000, 0, 1), atol=1e-7)
    of_contract = column(window={"center": 1000, "width": 1000})
    assert_allclose(check({"dicom": content}, of_contract)[0], np.clip((STORED - 500) / 1000, 0, 1), atol=1e-7)


def test_monochrome1_is_inverted():
    window = {"WindowCenter": 750.5, "WindowWidth": 1501}
    light, dark = (dicom(STORED, PhotometricInterpretation=f"MONOCHROME{kind}", **window) for kind in (2, 1))
    assert_allclose(check({"dicom": dark}), 1 - check({"dicom": light}), atol=1e-6)


def test_eight_bits_need_no_window_and_colours_keep_their_order():
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    assert_allclose(check({"dicom": dicom(STORED, PixelData=levels.tobytes(), **eight)})[0], RAMP, atol=1e-7)
    colours = np.random.default_rng(3).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    rgb = {**eight, "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    by_pixel = dicom(STORED, PixelData=colours.tobytes(), PlanarConfiguration=0, **rgb)
    by_plane = dicom(STORED, PixelData=colours.transpose(2, 0, 1).tobytes(), PlanarConfiguration=1, **rgb)
    of_grey = {"WindowCenter": 40, "WindowWidth": 80, "RescaleSlope": 2, "RescaleIntercept": -9}
    windowed = dicom(STORED, PixelData=colours.tobytes(), PlanarConfiguration=0, **rgb, **of_grey)
    for content in (by_pixel, by_plane, windowed):  # a window and a rescaling have no meaning for colours
        assert_allclose(check({"dicom": content}, COLOUR), colours.transpose(2, 0, 1) / 255, atol=1e-7)


@pytest.mark.parametrize("said", [{"Modality": "CT"}, {"Modality": "PT", "RescaleType": "HU"}])
def test_where_the_column_has_a_unit_the_rescaled_values_stand_and_nothing_is_windowed(said):
    content = dicom(STORED, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400, **said)
    assert_array_equal(check({"dicom": content}, HOUNSFIELD)[0], STORED - 1024)


@pytest.mark.parametrize(
    "tags",
    [
        {"Modality": "MR", "RescaleSlope": 1, "RescaleIntercept": 0},
        {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"},
        {"Modality": "CT", "RescaleSlope": 1},
        {"Modality": "CT", "RescaleIntercept": -1024},
        {"RescaleSlope": 1, "RescaleIntercept": 0},
    ],
)
def test_where_the_column_has_a_unit_a_file_whose_values_may_be_others_is_refused(tags):
    assert refused({"dicom": dicom(STORED, **tags)}, HOUNSFIELD)[0] == "unit"


@pytest.mark.parametrize("tags", [{"RescaleType": "HU"}, {"Modality": "CT"}])
def test_hounsfield_units_are_taken_for_no_other_unit(tags):
    of = column(unit="mg/cm3", range=[-1024, 3071])
    rescaled = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    assert refused({"dicom": dicom(STORED, **rescaled, **tags)}, of)[0] == "unit"
    said = {"Modality": "CT", "RescaleType": "MGML"}
    assert_array_equal(check({"dicom": dicom(STORED, **rescaled, **said)}, of)[0], STORED - 1024)


@pytest.mark.parametrize(
    "tags", [{"RescaleSlope": 1}, {"RescaleIntercept": -1024}, {"Modality": "CT"}], ids=["slope", "intercept", "CT"]
)
def test_what_a_file_does_not_say_of_its_rescaling_is_not_made_up(tags):
    of = column(window={"center": 40, "width": 400})
    assert refused({"dicom": dicom(STORED, **tags)}, of)[0] == "unit"


@pytest.mark.parametrize("keyword", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_a_file_whose_rescaling_may_stand_deeper_is_refused_and_not_taken_for_one_without(keyword):
    """An enhanced CT: its slope and intercept stand in a sequence; unread, air would have the value of soft tissue."""
    rescaling = Dataset()
    rescaling.RescaleIntercept, rescaling.RescaleSlope, rescaling.RescaleType = -1024, 1, "HU"
    groups = Dataset()
    groups.PixelValueTransformationSequence = [rescaling]
    content = dicom(STORED, NumberOfFrames=1, **{keyword: [groups]})
    of = column(window={"center": 40, "width": 400})
    code, said = refused({"dicom": content}, of)
    assert code == "not_an_image" and "functional groups" in said


def test_signed_values_of_fewer_bits_lose_the_drawings_above_them():
    twelve = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1}
    stored = np.array([[-2048, -1, 0, 2047]] * 4)
    drawn = (stored & 0x0FFF) | 0x7000
    content = dicom(drawn, WindowCenter=0.5, WindowWidth=4096, **twelve)
    assert_allclose(check({"dicom": content})[0], (stored + 2048) / 4095, atol=1e-3)


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_implicit.dcm"])
def test_a_real_recording_comes_out_as_pydicom_windows_it(name):
    path = get_testdata_file(name)
    known = pydicom.dcmread(path)
    windowed = apply_windowing(apply_modality_lut(known.pixel_array, known), known)
    assert (known.PixelRepresentation, known.BitsStored, known.get("RescaleSlope", 1)) == (1, 16, 1)
    expected = (windowed + 2**15) / (2**16 - 1)  # pydicom's windows end where the stored bits do
    of = column(height=known.Rows, width=known.Columns)
    with open(path, "rb") as file:
        assert_allclose(check({"dicom": file.read()}, of)[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned_in"),
        ({"Rows": 20_000, "Columns": 10_000}, "too_large"),
        ({"NumberOfFrames": 20_000_000}, "too_large"),
        ({"NumberOfFrames": 2}, "several_frames"),
        ({"Rows": 1, "Columns": 1}, "too_small"),
        ({"Rows": 8}, "wrong_proportions"),
        ({"SamplesPerPixel": 3}, "wrong_channels"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "not_an_image"),
        ({"PixelData": b"\0" * 30}, "not_an_image"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "not_an_image"),
        ({"HighBit": 14}, "not_an_image"),
        ({"syntax": JPEGBaseline8Bit, "PixelData": encapsulate([b"a JPEG"])}, "not_an_image"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "not_an_image"),
        ({"WindowWidth": 1}, "no_window"),
        ({"VOILUTFunction": "SIGMOID"}, "no_window"),
        ({"WindowCenter": None}, "no_window"),
        ({"ModalityLUTSequence": [Dataset()]}, "not_an_image"),
    ],
)
def test_a_dicom_file_that_is_no_such_picture_is_refused(tags, code):
    content = dicom(STORED, **{"WindowCenter": 500, "WindowWidth": 1000, **tags})
    assert refused({"dicom": content})[0] == code


def test_a_dicom_file_cut_off_anywhere_is_refused_and_says_nothing_of_its_patient():
    content = dicom(STORED, WindowCenter=500, WindowWidth=1000, syntax=ImplicitVRLittleEndian)
    check({"dicom": content})
    for length in range(0, len(content), 7):
        assert refused({"dicom": content[:length]})[0] == "not_an_image"


def test_a_name_where_a_number_should_be_is_not_told_nor_warned_of(recwarn, caplog):
    content = dicom(STORED, WindowCenter=500, WindowWidth=1000)
    for keyword in (b"500", b"1000"):
        planted = content.replace(keyword, NAME.encode()[: len(keyword)])
        assert refused({"dicom": planted})[0] == "not_an_image"
    assert not recwarn.list
    assert not caplog.records


def test_nothing_of_the_header_is_kept():
    content = dicom(STORED, WindowCenter=500, WindowWidth=1000)
    assert NAME.encode() in content
    for sent in ({"dicom": content}, {"dicom": text(content)}):
        kept = kept_signal(GREY, sent, images.check("xray", GREY, sent))
        assert len(kept) == 4 * 16
        assert_array_equal(check(text(kept)), check(sent))
