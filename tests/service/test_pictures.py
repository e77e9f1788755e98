"""A patient's name in a DICOM file, over a real server: in no answer, no log and no file, whatever happens to it."""

import base64
import json
import subprocess

import numpy as np
import pytest

from tests.pictures import NAME, dicom

PREDICT = "/v1/models/toy/predict"
OTHERS = {"age_years": 61, "sex": "female", "cholesterol_mg_dl": 240}
STORED = np.arange(256).reshape(16, 16) * 10
WINDOW = {"WindowCenter": 1280, "WindowWidth": 2560}


def written(name: str) -> set[bytes]:
    """What of a name stands in a file that holds it plainly, or as base64 from any of three places on."""
    plain = name.encode()
    return {plain, *(base64.b64encode(b"\0" * shift + plain)[4:-4] for shift in range(3))}


def files_with(folder, parts: set[bytes]) -> str:
    """By another process: this one would drop its locks on the ledger if it opened and closed that file."""
    patterns = [word for part in parts for word in ("-e", part.decode())]
    done = subprocess.run(["grep", "-rlaF", *patterns, folder], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@pytest.fixture
def client(once, recordings_server):
    return once("client of pictures", lambda stack: stack.enter_context(recordings_server.client()))


@pytest.fixture
def send(client):
    """The answers to a file: by itself, and in base64 among the record's other fields."""

    def ask(file: bytes) -> list:
        told = {"Content-Type": "application/dicom", "X-Field": "scan", "X-Record": json.dumps(OTHERS)}
        record = {**OTHERS, "scan": {"dicom": base64.b64encode(file).decode()}}
        return [
            client.post(PREDICT, content=file, headers=told),
            client.post(PREDICT, json={"records": [record]}),
        ]

    return ask


def test_the_name_in_a_dicom_file_is_nowhere_but_in_the_file(send, client, recordings_server, recordings):
    good = dicom(STORED, **WINDOW)
    assert sum(good.count(part) for part in written(NAME)) >= 4
    answers = send(good)
    for tags in ({"BurnedInAnnotation": "YES"}, {"NumberOfFrames": 2}, {"PhotometricInterpretation": NAME[:16]}):
        answers += send(dicom(STORED, **WINDOW, **tags))
    answers += send(good.replace(b"1280", NAME.encode()[:4])) + send(good[:-300])

    assert [answer.status_code for answer in answers] == [200] * 2 + [422] * 10, [answer.text for answer in answers]
    first, second = (answer.json()["predictions"][0] for answer in answers[:2])
    assert first["risk"] == second["risk"]
    answers.append(client.get(f"/v1/predictions/{first['id']}?replay=true"))
    assert answers[-1].json()["replay"]["agrees"] == "to the bit"
    kept = answers[-1].json()["record"]["scan"]
    assert len(base64.b64decode(kept)) == 4 * 8 * 8, "the pixels as the model saw them"

    for part in written(NAME):
        for answer in answers:
            assert part not in answer.content
        assert part not in recordings_server.log.read_bytes()
    assert files_with(recordings.home, written(NAME)) == ""
    assert "ledger.db" in files_with(recordings.home, {kept[:40].encode()})
