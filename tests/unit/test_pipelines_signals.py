"""Files that a source's cells name: recordings and pictures are read; one that cannot be read refuses its row."""

import io
import zipfile

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from configs.errors import RecordError
from configs.settings import Settings
from configs.spec import Spec, from_document
from features.columns import check_table, check_value, translate_table
from pipelines.signals import opened


@pytest.fixture
def spec(toy_document) -> Spec:
    wave = {
        "type": "waveform",
        "leads": ["II", "V1"],
        "sampling_hz": 100,
        "samples": 200,
        "unit": "mV",
        "accepts": ["uV"],
    }
    toy_document["columns"] |= {
        "ecg": {**wave, "range": [-10, 10], "folder": "recordings"},
        "picture": {
            "type": "image",
            "channels": 1,
            "height": 8,
            "width": 8,
            "unit": "1",
            "range": [0, 1],
            "folder": "pictures",
        },
    }
    return from_document(toy_document, "toy.yaml")


@pytest.fixture
def place(tmp_path, spec):
    """`place(ecg=…, picture=…)`: those cells of one row, opened in a repository of its own."""
    for folder in ("configs", "recordings", "pictures"):
        (tmp_path / folder).mkdir(exist_ok=True)
    settings = Settings(configs=tmp_path / "configs")

    def make(**cells):
        found = opened(spec, {name: [cell] for name, cell in cells.items()}, settings)
        return [found[name][0] for name in cells]

    make.folder = tmp_path
    return make


def waves(hz=100, leads=2):
    times = np.arange(2 * hz) / hz
    return np.array([np.sin(2 * np.pi * (2 + lead) * times) for lead in range(leads)])


def write_wfdb(folder, name, signals, names, unit="mV", hz=100):
    import wfdb

    comments = ["Mrs Example, 71"]
    formats = ["16"] * len(names)
    wfdb.wrsamp(
        name, hz, [unit] * len(names), list(names), signals.T, fmt=formats, comments=comments, write_dir=str(folder)
    )


def test_a_wfdb_record_gives_the_contracts_leads_in_the_contracts_order_with_its_unit_and_rate(place, spec):
    sent = waves(hz=500, leads=3)
    (place.folder / "recordings" / "sub").mkdir()
    write_wfdb(place.folder / "recordings" / "sub", "r1", 1000 * sent, ("v1", "I", "II"), "uV", 500)

    for cell in ("sub/r1", "sub/r1.hea"):
        (found,) = place(ecg=cell)
        assert set(found) == {"value", "unit", "sampling_hz"}
        assert (found["unit"], found["sampling_hz"]) == ("uV", 500)
        assert_allclose(found["value"], 1000 * sent[[2, 0]], atol=0.1)
        checked = check_value("ecg", spec.columns["ecg"], found).reshape(2, 200)
        assert_allclose(checked[:, 20:-20], sent[[2, 0]][:, ::5][:, 20:-20], atol=0.02)


def test_an_npy_and_an_npz_of_one_recording_are_the_same(place, spec):
    sent = waves().astype(np.float32)
    np.save(place.folder / "recordings" / "a.npy", sent)
    np.savez(place.folder / "recordings" / "b.npz", value=sent)
    np.savez(place.folder / "recordings" / "c.npz", value=1000 * sent, unit="uV", sampling_hz=100)

    for cell in ("a.npy", "b.npz", "c.npz"):
        (found,) = place(ecg=cell)
        assert_allclose(check_value("ecg", spec.columns["ecg"], found), sent.ravel(), atol=1e-6)


def test_a_png_and_an_npz_of_one_picture_are_the_same(place, spec):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    Image.fromarray(pixels).save(place.folder / "pictures" / "a.png")
    np.savez(place.folder / "pictures" / "b.npz", pixels / np.float32(255))

    (png,), (npz,) = place(picture="a.png"), place(picture="b.npz")
    column = spec.columns["picture"]
    assert_array_equal(check_value("picture", column, png), check_value("picture", column, npz))


def test_an_empty_cell_is_missing_and_other_columns_are_as_they_were(place):
    assert place(ecg=None, age_years=7) == [None, 7]


@pytest.mark.parametrize(
    "cell", ["gone", "gone.npy", "gone.npz", "/etc/passwd", "../outside.npy", "", 7, "x\0y", "no.wav"]
)
def test_a_path_that_leads_nowhere_or_outside_is_refused_without_being_told(place, spec, cell):
    np.save(place.folder / "outside.npy", waves())

    (found,) = place(ecg=cell)
    with pytest.raises(RecordError) as caught:
        check_value("ecg", spec.columns["ecg"], found)

    assert caught.value.code == "unreadable_file"
    assert caught.value.field == "ecg"
    for told in ("gone", "passwd", "outside"):
        assert told not in str(caught.value)


def test_a_record_that_a_number_names_is_told_how_to_be_written(place):
    (found,) = place(ecg=100)  # the cell may have been 0100, another patient's
    assert (
        str(found) == "ecg: a path is expected, and its cell is no text; where a number names the file write 100.hea."
    )


def test_a_picture_of_another_kind_and_a_file_that_is_none_are_refused(place):
    (place.folder / "pictures" / "a.gif").write_bytes(b"GIF89a")
    (place.folder / "recordings" / "a.npy").write_bytes(b"Mrs Example")
    (place.folder / "recordings" / "b.npz").write_bytes(b"Mrs Example")
    np.savez(place.folder / "recordings" / "c.npz", other=waves())
    np.save(place.folder / "recordings" / "d.npy", np.array([{"a": 1}], object), allow_pickle=True)

    for column, cell in (("picture", "a.gif"), ("ecg", "a.npy"), ("ecg", "b.npz"), ("ecg", "c.npz"), ("ecg", "d.npy")):
        (found,) = place(**{column: cell})
        assert isinstance(found, RecordError)
        assert found.code == "unreadable_file"
        assert "Example" not in str(found)


def test_an_npz_packed_as_numpy_packs_none_is_not_unpacked(place, monkeypatch):
    with zipfile.ZipFile(place.folder / "recordings" / "a.npz", "w", zipfile.ZIP_BZIP2) as packed:
        np.save(file := io.BytesIO(), waves())
        packed.writestr("value.npy", file.getvalue())
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("it was opened"))

    (found,) = place(ecg="a.npz")

    assert str(found) == "ecg: its .npz is packed in another way than numpy packs one."


def test_a_wfdb_record_without_a_lead_or_with_several_units_is_refused(place):
    write_wfdb(place.folder / "recordings", "r1", waves(leads=2), ("II", "V2"))
    write_wfdb(place.folder / "recordings", "r2", waves(leads=2), ("II", "V1"))
    header = place.folder / "recordings" / "r2.hea"
    header.write_text(header.read_text().replace("mV", "uV", 1))

    (lacks,), (mixed,) = place(ecg="r1"), place(ecg="r2")
    assert (lacks.code, mixed.code) == ("wrong_leads", "unit")
    assert "V1" in str(lacks)


def test_a_header_that_names_a_file_elsewhere_is_refused(place):
    write_wfdb(place.folder / "recordings", "r1", waves(), ("II", "V1"))
    header = place.folder / "recordings" / "r1.hea"
    header.write_text(header.read_text().replace("r1.dat", "../r1.dat"))

    (found,) = place(ecg="r1")
    assert found.code == "unreadable_file"


def test_an_unreadable_file_refuses_its_row_and_no_other(place, spec):
    np.save(place.folder / "recordings" / "a.npy", waves())
    plain = {"id": ["a", "b"], "age": [50, 60], "chol": [200, 210], "rate": [150, 140], "sex": ["F", "M"]}
    plain |= {"pain": ["none", "none"], "smoker": [True, False], "site": ["North", "South"], "sick": [0, 1]}
    table = {**plain, "ecg": ["a.npy", "gone.npy"], "picture": ["a.png", None]}
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(place.folder / "pictures" / "a.png")
    settings = Settings(configs=place.folder / "configs")

    kept, refusals = check_table(spec, table, opened(spec, translate_table(spec, table), settings))

    assert len(kept) == 1
    assert [(refusal.row, refusal.column, refusal.code) for refusal in refusals] == [(2, "ecg", "unreadable_file")]
