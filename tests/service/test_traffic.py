"""Another version beside the champion: a shadow that nobody sees, a canary for some patients, an arm for a tag."""

import time

import numpy as np
import pytest
import sqlalchemy as sa

from features.synthetic import draw
from ledger import tables, traffic
from ledger.traffic import Lane
from pipelines.approve import approve, reject
from pipelines.traffic import off, send

FOLLOWED_WITHIN_S = 2.0
ON_RECORD_WITHIN_S = 5.0

pytestmark = pytest.mark.usefixtures("at_one")


@pytest.fixture
def route(ward):
    """`route(kind, version, …)`: sets a lane of `toy`, and waits until every worker follows."""

    def set_one(kind, version, tag=None, share=None):
        found = send(Lane("toy", kind, tag), f"toy@{version}", share, "for the test", ward)
        time.sleep(FOLLOWED_WITHIN_S)
        return found

    return set_one


def ask(client, *records, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.post("/v1/models/toy/predict", json={"records": list(records)}, headers=named)
    assert answer.status_code == 200, answer.text
    return answer.json()


def risk(predictor, records):
    checked = [predictor.check({n: v for n, v in record.items() if n != "patient"}) for record in records]
    return predictor.risk(predictor.features(checked)).tolist()


def rows_of(engine, answers):
    """The rows of `requests` that these answers' predictions lie in, by their number."""
    numbers = {int(said["id"].partition("-")[0]) for answer in answers for said in answer["predictions"]}
    with engine.connect() as connection:
        found = connection.execute(sa.select(tables.requests).where(tables.requests.c.id.in_(numbers))).all()
    return {row.id: row for row in found}


def shadows_of(engine, numbers):
    """What a shadow said of these requests, by their number, once it has been put on record."""
    query = sa.select(tables.shadows).where(tables.shadows.c.request.in_(numbers))
    deadline = time.monotonic() + ON_RECORD_WITHIN_S
    found = []
    while len(found) < len(numbers) and time.monotonic() < deadline:
        time.sleep(0.1)
        with engine.connect() as connection:
            found = connection.execute(query).all()
    assert sorted(row.request for row in found) == sorted(numbers), "one row for each answered request"
    return {row.request: row for row in found}


def shadowed(client, outcome):
    """How many records of `toy` the shadow is counted to have treated so."""
    wanted = f'medimind_shadow_records_total{{model="toy",outcome="{outcome}"}}'
    lines = (line.rpartition(" ") for line in client.get("/metrics").text.splitlines())
    return sum(float(value) for name, _, value in lines if name == wanted)


def test_a_shadow_scores_every_answered_record_and_changes_no_answer(pair, route, versions, ward_ledger):
    requests = [draw(versions[1].spec.columns, n, seed=n) for n in (1, 1, 7, 40)]
    with pair.one_client_each() as clients:
        before = {pid: [ask(client, *records) for records in requests] for pid, client in clients.items()}

        shadow = route("shadow", 2)
        during = {pid: [ask(client, *records) for records in requests] for pid, client in clients.items()}

    for pid, answers in during.items():
        for records, answer, earlier in zip(requests, answers, before[pid], strict=True):
            without_id = [{**said, "id": None} for said in answer["predictions"]]
            assert without_id == [{**said, "id": None} for said in earlier["predictions"]]
            assert answer["version"] == 1
            assert {row.traffic for row in rows_of(ward_ledger, [answer]).values()} == {None}
            (number,) = rows_of(ward_ledger, [answer])
            row = shadows_of(ward_ledger, {number})[number]
            assert np.frombuffer(row.risks).tolist() == risk(versions[2], records)
            assert (row.version, row.bundle) == (2, shadow.bundle)
    numbers = {number for answers in before.values() for number in rows_of(ward_ledger, answers)}
    with ward_ledger.connect() as connection:
        query = sa.select(sa.func.count()).where(tables.shadows.c.request.in_(numbers))
        assert connection.execute(query).scalar_one() == 0, "what was answered before the shadow was set"


def test_a_shadow_with_another_contract_says_nothing_of_a_record_that_it_refuses(
    pair, route, versions, ward_ledger, patient
):
    """Version 3 takes patients of 30 to 80 years, the champion those of 18 to 120."""
    young = {**patient, "age_years": 25}
    with pair.one_client_each() as clients:
        client, *_ = clients.values()
        before = {outcome: shadowed(client, outcome) for outcome in ("scored", "refused", "refused_in_part")}
        route("shadow", 3)

        alone, mixed, good = ask(client, young), ask(client, patient, young), ask(client, patient, patient)

        found = shadows_of(ward_ledger, set(rows_of(ward_ledger, [alone, mixed, good])))
        of = {id(answer): found[int(answer["predictions"][0]["id"].partition("-")[0])] for answer in (alone, mixed)}
        (expected,) = risk(versions[3], [patient])
        assert np.isnan(np.frombuffer(of[id(alone)].risks)).tolist() == [True]
        scored, refused = np.frombuffer(of[id(mixed)].risks).tolist()
        assert scored == expected and np.isnan(refused)
        counted = {outcome: shadowed(client, outcome) - before[outcome] for outcome in before}
        assert counted == {"scored": 2, "refused": 1, "refused_in_part": 2}


def test_a_shadow_beside_a_canary_scores_each_record_in_its_place_before_and_after_a_restart(
    pair, route, versions, ward_ledger, patient
):
    """Version 3 refuses what lies outside 30 to 80 years; a record that no contract keeps lies among the others."""
    route("canary", 2, share=0.5)
    shadow = route("shadow", 3)
    drawn = draw(versions[1].spec.columns, 40, seed=11)
    records = [{**one, "patient": f"patient {number}", "age_years": 25 + number} for number, one in enumerate(drawn)]
    sent = [*records[:20], {**patient, "age_years": 7}, *records[20:]]
    expected = [risk(versions[3], [one])[0] if 30 <= one["age_years"] <= 80 else None for one in records]

    def check(client):
        said = ask(client, *sent)["predictions"]
        assert said.pop(20)["error"]["code"] == "out_of_range"
        assert {one.get("version", 1) for one in said} == {1, 2}, "some records are the canary's"
        found = shadows_of(ward_ledger, {int(one["id"].partition("-")[0]) for one in said})
        assert {(row.version, row.bundle) for row in found.values()} == {(3, shadow.bundle)}
        scored = [
            float(np.frombuffer(found[int(number)].risks)[int(position)])
            for number, _, position in (one["id"].partition("-") for one in said)
        ]
        assert [None if np.isnan(one) else one for one in scored] == expected

    with pair.one_client_each() as clients:
        for client in clients.values():
            check(client)
    pair.stop()
    pair.start()
    pair.wait()
    with pair.one_client_each() as clients:
        for client in clients.values():
            check(client)


def test_a_rejected_version_answers_nobody_within_two_seconds(pair, route, ward, ward_ledger, patient):
    route("ab", 2, tag="arm-b")
    records = [{**patient, "patient": f"patient {number}"} for number in range(20)]
    with pair.one_client_each() as clients:
        for client in clients.values():
            assert {one["version"] for one in (ask(client, *records, X_Traffic_Tag="arm-b"),)} == {2}

        reject("toy", 2, "alarms too often", ward)

        time.sleep(FOLLOWED_WITHIN_S)
        for client in clients.values():
            assert ask(client, *records, X_Traffic_Tag="arm-b")["version"] == 1
        approve("toy", 2, "a dead battery", ward)
        time.sleep(FOLLOWED_WITHIN_S)
        for client in clients.values():
            assert ask(client, *records, X_Traffic_Tag="arm-b")["version"] == 1


def test_a_canary_keeps_every_patient_on_one_side_and_answers_in_order_with_its_own_risks(
    pair, route, versions, ward_ledger, patient
):
    """In every worker, record by record and all in one request, and after the server was killed and started again."""
    canary = route("canary", 2, share=0.3)
    records = [
        {**record, "patient": f"patient {number}"}
        for number, record in enumerate(draw(versions[1].spec.columns, 300, seed=9))
    ]
    mixed = [*records[:150], patient, *records[150:]]  # one without a patient
    risks = {number: risk(versions[number], mixed) for number in (1, 2)}

    def sides(clients):
        told = []
        for client in clients.values():
            together = ask(client, *mixed)
            side = check(together)
            for record, expected in zip(records[::5], (*side[:150], *side[151:])[::5], strict=True):
                alone = ask(client, record)
                assert alone["version"] == expected
                assert check_lane(alone) == (canary.id if expected == 2 else None)
            told.append(side)
        return told

    def check(answer):
        assert answer["version"] == 1
        side = [said.get("version", 1) for said in answer["predictions"]]
        assert [said["risk"] for said in answer["predictions"]] == [
            risks[version][place] for place, version in enumerate(side)
        ]
        kept = rows_of(ward_ledger, [answer])
        assert sorted((row.version, row.traffic, row.n) for row in kept.values()) == [
            (1, None, side.count(1)),
            (2, canary.id, side.count(2)),
        ]
        for place, said in enumerate(answer["predictions"]):
            row = kept[int(said["id"].partition("-")[0])]
            assert row.version == side[place]
            assert np.frombuffer(row.risks)[int(said["id"].partition("-")[2])] == said["risk"]
        return side

    def check_lane(answer):
        (row,) = rows_of(ward_ledger, [answer]).values()
        return row.traffic

    with pair.one_client_each() as clients:
        first, second = sides(clients)
    pair.stop()
    pair.start()
    pair.wait()
    with pair.one_client_each() as clients:
        again = sides(clients)

    assert first == second == again[0] == again[1]
    assert first[150] == 1, "a record without a patient is the champion's"
    spread = (0.3 * 0.7 / 300) ** 0.5
    assert abs(first.count(2) / 300 - 0.3) < 5 * spread


def test_a_tag_leads_to_its_arm_and_an_unknown_one_to_the_champion(pair, route, versions, ward, ward_ledger, patient):
    arm = route("ab", 2, tag="arm-b")
    risks = {number: risk(versions[number], [patient])[0] for number in (1, 2)}

    def told(client, **headers):
        answer = ask(client, patient, **headers)
        (said,) = answer["predictions"]
        (row,) = rows_of(ward_ledger, [answer]).values()
        assert said["risk"] == risks[row.version]
        assert said.get("version", answer["version"]) == row.version
        return row.version, row.traffic

    with pair.one_client_each() as clients:
        for client in clients.values():
            assert told(client, X_Traffic_Tag="arm-b") == (2, arm.id)
            assert told(client, X_Traffic_Tag="arm-c") == (1, None)
            assert told(client) == (1, None)
        off("toy", "arm-b", "the trial is over", ward)
        time.sleep(FOLLOWED_WITHIN_S)
        for client in clients.values():
            assert told(client, X_Traffic_Tag="arm-b") == (1, None)

    with ward_ledger.connect() as connection:
        query = sa.select(tables.audit.c.actor, tables.audit.c.detail).where(tables.audit.c.action == "traffic")
        said = connection.execute(query.order_by(tables.audit.c.id)).all()
    assert ("tests", f"toy: arm-b to @2 {arm.bundle}") in said
    assert ("tests", "toy: arm-b off") in said
    assert traffic.find(ward_ledger, "toy").lanes == {}
