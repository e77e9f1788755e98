"""Waveforms and images over a real server: as JSON and as bytes of their own, kept and computed again to the bit."""

import base64
import io
import json
from collections.abc import Iterator

import httpx
import jsonschema
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from client import Client, Prediction
from client import Refused as ClientRefused
from ledger.database import connect
from ledger.predictions import find
from ledger.replay import replay

PREDICT = "/v1/models/toy/predict"
NPY, RAW = "application/x-npy", "application/octet-stream"
OTHERS = {"age_years": 61, "sex": "female", "cholesterol_mg_dl": 240}
TOLD = {"X-Field": "ecg", "X-Record": json.dumps(OTHERS)}
SHAPED = {"Content-Type": RAW, "X-Shape": "2,50", "X-Dtype": "float32"}


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture
def client(once, recordings_server) -> httpx.Client:
    return once("client of recordings", lambda stack: stack.enter_context(recordings_server.client()))


@pytest.fixture
def send(client):
    """`send(body, header=value)`: the answer to a signal that comes by itself; `X-` stands before each header."""

    def post(body: bytes, kind: str = NPY, **headers: str) -> httpx.Response:
        return client.post(PREDICT, content=body, headers={"Content-Type": kind} | TOLD | headers)

    return post


@pytest.fixture
def ledger(recordings) -> Iterator:
    engine = connect(recordings)
    yield engine
    engine.dispose()


def said(answer: httpx.Response) -> dict:
    assert answer.status_code == 200, answer.text
    (prediction,) = answer.json()["predictions"]
    return prediction


def test_a_recording_is_answered_alike_however_it_comes(client, send, recording, ledger):
    wave = recording(5)
    packed = base64.b64encode(wave.tobytes()).decode()
    answers = [
        client.post(PREDICT, json={"records": [{**OTHERS, "ecg": wave.tolist()}]}),
        client.post(PREDICT, json={"records": [{**OTHERS, "ecg": packed}]}),
        client.post(PREDICT, json={"columns": {name: [cell] for name, cell in {**OTHERS, "ecg": packed}.items()}}),
        send(npy(wave)),
        send(npy(np.asfortranarray(wave))),
        send(npy(wave.astype(">f8"))),
        send(wave.tobytes(), **SHAPED),
        send(wave.tobytes(), **SHAPED | {"X-Shape": "1,2,50"}),
    ]

    first, *others = [find(ledger, said(answer)["id"]) for answer in answers]

    for other in others:
        assert (other.risk, other.feature_digest) == (first.risk, first.feature_digest)
    assert all(
        other.record["ecg"] == {"value": packed, "unit": "mV", "sampling_hz": 100, "leads": ["I", "V1"]}
        for other in (first, *others)
    )


def test_several_recordings_in_one_array_are_a_record_each(send, recording):
    waves = np.stack([recording(seed) for seed in range(3)])
    told = [OTHERS, {**OTHERS, "age_years": 40, "reference": "second"}, {**OTHERS, "age_years": "old"}]

    answer = send(npy(waves), **{"X-Record": json.dumps(told)})

    first, second, third = answer.json()["predictions"]
    assert first["risk"] != second["risk"]
    assert third["error"]["field"] == "age_years"


def test_a_prediction_of_a_signal_is_replayed_to_the_bit(client, send, recording, recordings, ledger):
    prediction = said(send(npy(recording(6))))

    found = client.get(f"/v1/predictions/{prediction['id']}?replay=true").json()
    again = replay(ledger, recordings, prediction["id"])

    assert found["replay"] == {"risk": prediction["risk"], "agrees": "to the bit", "same_features": True}
    assert again.holds and again.agrees == "to the bit"


def test_of_a_signal_one_figure_is_kept_beside_the_plain_features(client, send, recording, recordings):
    wave = recording(7)
    found = client.get(f"/v1/predictions/{said(send(npy(wave)))['id']}").json()

    assert len(found["features"]) == 7 + 2  # the toy disease's, the waveform's and the missing image's
    assert found["features"][-2] == pytest.approx(float(np.sqrt(np.mean(np.square(wave.astype(float))))), rel=1e-6)
    assert found["features"][-1] is None


def test_the_same_key_with_another_header_is_another_request(send, recording):
    body, key = npy(recording(8)), {"Idempotency-Key": "one recording"}
    first, again = send(body, **key), send(body, **key)
    other = send(body, **key | {"X-Record": json.dumps({**OTHERS, "age_years": 20})})

    assert said(first) == said(again)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key")


@pytest.mark.parametrize(
    ("body", "headers", "status", "code", "field"),
    [
        (b"", {}, 400, "not_npy", None),
        (b"\x93NUMPY\x01\x00", {}, 400, "not_npy", None),
        (npy(np.zeros((2, 50), "<f4"))[:-4], {}, 400, "not_npy", None),
        (npy(np.array([{"age": 61}], object)), {}, 422, "unsupported_dtype", "Content-Type"),
        (npy(np.zeros((2, 50), complex)), {}, 422, "unsupported_dtype", "Content-Type"),
        (npy(np.zeros(50, "<f4")), {}, 422, "wrong_shape", "ecg"),
        (npy(np.zeros((0, 2, 50), "<f4")), {}, 422, "malformed", "ecg"),
        (npy(np.full((2, 50), np.nan, "<f4")), {}, 422, None, "ecg"),
        (npy(np.full((2, 50), 99, "<f4")), {}, 422, None, "ecg"),
        (npy(np.zeros((3, 50), "<f4")), {}, 422, None, "ecg"),
        (npy(np.ones((2, 50), "<f4")), {"X-Field": "weight"}, 422, "unknown_field", "X-Field"),
        (npy(np.ones((2, 50), "<f4")), {"X-Record": "{"}, 400, "not_json", "X-Record"),
        (npy(np.ones((2, 50), "<f4")), {"X-Record": "[{}, {}]"}, 422, "malformed", "X-Record"),
        (npy(np.ones((2, 50), "<f4")), {"X-Record": '{"weight": 1}'}, 422, "unknown_field", "weight"),
        (npy(np.ones((2, 50), "<f4")), {"X-Sampling-Hz": "fast"}, 422, "malformed", "X-Sampling-Hz"),
        (npy(np.ones((2, 50), "<f4")), {"X-Explain": "please"}, 422, "malformed", "X-Explain"),
        (b"", SHAPED, 422, "malformed", "X-Shape"),
        (b"\0" * 400, SHAPED | {"X-Shape": "2,49"}, 422, "malformed", "X-Shape"),
        (b"\0" * 400, SHAPED | {"X-Dtype": "float16"}, 422, "malformed", "X-Dtype"),
        (b"", {"Content-Type": "image/png", "X-Field": "scan"}, 400, "malformed", None),
        (b"\x89PNG", {"Content-Type": "image/png"}, 422, "unknown_field", "X-Field"),
        (b"\x89PNG", {"Content-Type": "image/jpeg"}, 415, "unsupported_media_type", "Content-Type"),
    ],
)
def test_a_signal_that_cannot_be_read_is_refused_by_name_and_the_next_is_answered(
    body, headers, status, code, field, send, recording
):
    answer = send(body, **headers)

    error = answer.json()["error"]
    assert (answer.status_code, error["field"]) == (status, field), error
    assert code is None or error["code"] == code
    assert said(send(npy(recording(1))))


NAME = "Quibbleworth"
"""Of a patient, as a file's header may have it."""


def png(pixels: np.ndarray) -> bytes:
    file, about = io.BytesIO(), PngInfo()
    about.add_text("Author", NAME)
    Image.fromarray(pixels).save(file, "png", pnginfo=about)
    return file.getvalue()


def dicom(pixels: np.ndarray) -> bytes:
    """A DICOM file of 8-bit pixels that names its patient, in the header and in a private tag."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.PatientName = made.PatientID = NAME
    made.private_block(0x0011, NAME, create=True).add_new(0x01, "LO", NAME)
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
    made.PixelData = pixels.tobytes()
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=False)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["image/png", "application/dicom"])
def test_of_a_pictures_file_the_pixels_are_kept_and_nothing_else_anywhere(
    kind, client, send, recordings, recordings_server, ledger
):
    pixels = np.random.default_rng(3).integers(0, 256, (8, 8), np.uint8)
    body = png(pixels) if kind == "image/png" else dicom(pixels)
    form, packed = kind.rpartition("/")[2], base64.b64encode(body).decode()

    prediction = said(send(body, kind, **{"X-Field": "scan"}))
    in_json = said(client.post(PREDICT, json={"records": [{**OTHERS, "scan": {form: packed}}]}))
    refused = client.post(PREDICT, json={"records": [{**OTHERS, "age_years": 999, "scan": {form: packed}}]})

    found, other = find(ledger, prediction["id"]), find(ledger, in_json["id"])
    kept = np.frombuffer(base64.b64decode(found.record["scan"]), "<f4")
    assert np.allclose(kept, pixels.ravel() / 255, atol=1e-7)
    assert (found.record, found.feature_digest) == (other.record | {"at": found.record["at"]}, other.feature_digest)
    assert replay(ledger, recordings, prediction["id"]).agrees == "to the bit"
    assert refused.status_code == 422
    everything = [path.read_bytes() for path in recordings.home.rglob("*") if path.is_file()]
    told = [refused.content, client.get(f"/v1/predictions/{prediction['id']}").content, client.get("/metrics").content]
    assert NAME.encode() in body and packed.encode() not in b"".join(everything)
    assert not any(NAME.encode() in content for content in [*everything, *told])


@pytest.mark.parametrize("kind", ["image/png", "application/dicom"])
def test_a_picture_that_cannot_be_read_is_refused_and_the_next_is_answered(kind, send):
    pixels = np.random.default_rng(3).integers(0, 256, (8, 8), np.uint8)
    whole = png(pixels) if kind == "image/png" else dicom(pixels)
    small = png(pixels[:1, :1]) if kind == "image/png" else dicom(np.ascontiguousarray(pixels[:1, :1]))
    for body in (whole[: len(whole) // 2], whole[:60], b"x" * 100, small):
        answer = send(body, kind, **{"X-Field": "scan"})
        assert (answer.status_code, answer.json()["error"]["field"]) == (422, "scan"), answer.text
        assert NAME not in answer.text
    assert said(send(whole, kind, **{"X-Field": "scan"}))


def test_a_recording_at_another_rate_and_in_another_unit_is_the_same_recording(send, recording):
    wave = recording(9)
    microvolts = np.round(wave * 1000).astype("<i2")
    as_sent = said(send(npy(microvolts.astype("<f4") / np.float32(1000))))
    converted = said(send(microvolts.tobytes(), RAW, **SHAPED | {"X-Dtype": "int16", "X-Unit": "uV"}))
    faster = send(npy(np.repeat(wave, 5, axis=1)), **{"X-Sampling-Hz": "500"})

    assert converted["risk"] == pytest.approx(as_sent["risk"], abs=1e-6)
    assert said(faster)
    assert said(send(npy(wave), **{"X-Leads": "I,V1"}))["risk"] == said(send(npy(wave)))["risk"]
    assert send(npy(wave), **{"X-Leads": "V1,I"}).json()["error"]["code"] == "wrong_leads"
    assert send(npy(wave), **{"X-Unit": "stone"}).json()["error"]["code"] == "unit"
    assert send(npy(wave), **{"X-Sampling-Hz": "7"}).json()["error"]["code"] == "sampling_rate"


def test_a_body_as_large_as_the_contract_allows_is_read_and_no_larger_one(send, client):
    limit = 8 * 1024 * 1024
    answer = send(b"\0" * (limit + 1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert send(b"\0" * limit).json()["error"]["code"] == "not_npy"


def test_a_header_that_is_there_twice_is_refused(client, recording):
    headers = [("Content-Type", NPY), ("X-Field", "ecg"), ("X-Unit", "mV"), ("X-Unit", "uV")]
    answer = client.post(PREDICT, content=npy(recording(1)), headers=headers)
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "X-Unit")


def test_of_a_model_without_signals_such_a_body_is_no_type_that_it_reads(server, recording):
    with server.client() as client:
        answer = client.post(PREDICT, content=npy(recording(1)), headers={"Content-Type": NPY})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_the_examples_of_the_schema_are_answered(client):
    schema = client.get("/v1/models/toy/schema").json()
    examples = schema["examples"]

    assert len(examples) == 3 and any(example.get("ecg") for example in examples)
    for example in examples:
        jsonschema.validate(example, schema)
    answer = client.post(PREDICT, json={"records": examples})
    assert all("risk" in one for one in answer.json()["predictions"]), answer.text


def test_the_client_sends_an_array_and_is_answered_as_by_json(recordings_server, recording):
    waves = np.stack([recording(seed) for seed in (1, 2)])
    with Client(recordings_server.url) as medimind:
        records = [OTHERS, {**OTHERS, "age_years": 40}]
        by_array = medimind.predict("toy", records, array=waves, field="ecg", deadline_ms=60_000)
        by_json = medimind.predict(
            "toy", [{**each, "ecg": wave.tolist()} for each, wave in zip(records, waves, strict=True)]
        )
        with pytest.raises(ClientRefused, match="gap"):
            medimind.predict("toy", [OTHERS, OTHERS], array=waves * np.float32(np.nan), field="ecg")

    assert all(isinstance(one, Prediction) for one in by_array.predictions)
    assert [one.risk for one in by_array.predictions] == [one.risk for one in by_json.predictions]
