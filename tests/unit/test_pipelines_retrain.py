"""A retraining goes as far as its evidence carries it, leaves each step on record, and may be killed between two."""

import numpy as np
import pytest
import sqlalchemy as sa

from configs.errors import BusyError, LedgerError, PromotionError, TooFewError
from features import cohort
from ledger import alerts, confirmed, locks, promotions, registry, retrainings, stops, tables, traffic
from ledger.chain import check
from ledger.database import now, writing
from ledger.outcomes import Outcome, record
from ledger.predictions import hash_patients, patient_key, prediction_id, purge
from ledger.replay import replay
from pipelines import candidate
from pipelines import retrain as retraining
from pipelines.promote import promote
from pipelines.retrain import retrain


@pytest.fixture
def clinic(clinic_of):
    return clinic_of()


def steps(clinic):
    return [step.step for step in retrainings.steps(clinic.engine, "toy")]


def test_the_whole_way_from_a_trigger_to_a_kept_champion(clinic):
    home = clinic.home
    assert "nothing is due" in retrain("toy", home).stands and retraining.due("toy", home) == ()

    clinic.see(160, more_events=0.6)
    assert "outcomes have come since" in retraining.due("toy", home)[0]
    done = retrain("toy", home)
    assert [step.step for step in done.steps] == ["begun", "trial"], done.stands
    assert "silent trial" in done.stands and "of 40" in done.stands
    candidate = registry.find(home, "toy", 2)
    assert candidate.passed and candidate.bundle == done.steps[-1].bundle
    assert clinic.champion.version == 1, "a candidate under trial answers nobody"
    assert traffic.find(clinic.engine, "toy").shadow.version == 2

    clinic.see(20, more_events=0.6)
    assert not retrain("toy", home).steps, "too few outcomes decide nothing"
    clinic.see(100, more_events=0.6)
    done = retrain("toy", home)
    assert [step.step for step in done.steps] == ["promoted"], done.stands
    assert clinic.champion.version == 2 and "in its silent trial" in clinic.champion.reason
    assert traffic.find(clinic.engine, "toy").lanes == {}

    clinic.see(100, more_events=0.6)
    assert [step.step for step in retrain("toy", home).steps] == ["kept"]
    assert traffic.find(clinic.engine, "toy").lanes == {}
    assert steps(clinic) == ["begun", "trial", "promoted", "kept"]
    found = retrainings.steps(clinic.engine, "toy")
    assert found[2].evidence["trial"]["paired"]["log_loss"]["high"] < 0
    assert found[1].evidence["cohort"]["test"] >= 30 and all(step.reason for step in found)
    (told,) = {episode.code: episode for _, episode in alerts.undelivered(clinic.engine, ["log"])}.values()
    assert told.code == "MR004" and "in its silent trial" in told.text, "people are told of a self-made promotion, once"
    assert not check(clinic.engine).problems


def test_a_champion_that_fails_its_probation_is_rolled_back_by_itself(clinic):
    home = clinic.home
    clinic.see(160, more_events=0.6)
    retrain("toy", home)
    clinic.see(120, more_events=0.6)
    assert retrain("toy", home).steps[-1].step == "promoted"
    clinic.see(160, more_events=-0.5)
    done = retrain("toy", home)
    assert [step.step for step in done.steps] == ["rolled_back"]
    assert "worse than the earlier champion's" in done.steps[0].reason
    assert clinic.champion.version == 1 and "probation" in clinic.champion.reason
    assert traffic.find(clinic.engine, "toy").lanes == {}
    assert [one.code for _, one in alerts.undelivered(clinic.engine, ["log"])] == ["MR004", "MR005"]


def test_a_candidate_that_is_no_better_is_refused_and_not_tried_again_at_once(clinic):
    clinic.see(120)
    done = retrain("toy", clinic.home)
    assert [step.step for step in done.steps] == ["begun", "refused"], done.stands
    assert clinic.champion.version == 1 and traffic.find(clinic.engine, "toy").lanes == {}
    assert not retrain("toy", clinic.home).steps
    clinic.see(20)
    assert retrain("toy", clinic.home).steps[0].step == "begun"


def test_a_candidate_whose_trial_disappoints_is_refused(clinic):
    clinic.see(160, more_events=0.6)
    retrain("toy", clinic.home)
    clinic.see(80)
    done = retrain("toy", clinic.home)
    assert [step.step for step in done.steps] == ["refused"] and "in its silent trial" in done.stands
    assert clinic.champion.version == 1 and traffic.find(clinic.engine, "toy").lanes == {}


def test_with_too_few_of_a_class_it_waits_and_trains_nothing(clinic):
    clinic.see(70, more_events=1.0)
    done = retrain("toy", clinic.home)
    assert [step.step for step in done.steps] == ["begun", "waits"] and "not applicable" in done.stands
    assert [version.number for version in registry.versions(clinic.home, "toy")] == [1]
    assert not retrain("toy", clinic.home).steps, "nobody came since"
    clinic.see(100, more_events=0.6)
    done = retrain("toy", clinic.home)
    assert [step.step for step in done.steps] == ["begun", "trial"] and done.steps[0].run == 1


def test_who_was_learned_from_before_is_in_no_test_part_when_they_come_again(clinic):
    old = cohort.load(clinic.home.data / "cohorts" / "toy.parquet").only("train").patient[:20].tolist()
    clinic.see(160, again=old)
    engine, champion = clinic.engine, clinic.predictor(clinic.champion.bundle).bundle
    found = candidate.gather(engine, champion, confirmed.newest_outcome(engine), (-1, -1), clinic.home)
    same = set(hash_patients(patient_key(clinic.home.home), old))
    assert not same & set(found.patients.only("test").patient) and same <= set(found.patients.only("train").patient)


def test_after_a_purge_too_nobody_is_a_test_of_the_champion_that_learned_from_them(clinic):
    names = [f"returning-{number}" for number in range(130)]
    clinic.see(160, more_events=0.6, again=names)
    retrain("toy", clinic.home)
    clinic.see(120, more_events=0.6)
    assert retrain("toy", clinic.home).steps[-1].step == "promoted"
    clinic.see(100, more_events=0.6)
    assert retrain("toy", clinic.home).steps[-1].step == "kept"
    purge(clinic.engine, now(), "nurse.joy")
    clinic.see(200, again=names)
    engine, champion = clinic.engine, clinic.predictor(clinic.champion.bundle).bundle
    learned = candidate.learned_from(champion, clinic.home)
    back = set(hash_patients(patient_key(clinic.home.home), names)) & learned
    found = candidate.gather(engine, champion, confirmed.newest_outcome(engine), (-1, -1), clinic.home)
    assert len(back) > 20 and not back & set(found.patients.only("test").patient)


def test_whoever_the_candidate_learned_from_is_no_test_of_it_in_its_trial(clinic):
    names = [f"returning-{number}" for number in range(130)]
    clinic.see(160, more_events=0.6, again=names)
    retrain("toy", clinic.home)
    candidate_bundle = clinic.predictor(retrainings.newest(clinic.engine, "toy").bundle).bundle
    learned = candidate.learned_from(candidate_bundle, clinic.home)
    again = [each for each in names if hash_patients(patient_key(clinic.home.home), [each])[0] in learned]
    clinic.see(len(again), more_events=0.6, again=again)
    assert len(again) > 40 and not retrain("toy", clinic.home).steps
    assert "0 patients of 40" in retrain("toy", clinic.home).stands


def test_an_outcome_that_is_sent_again_is_no_news(clinic):
    clinic.see(40)
    before = confirmed.newest_outcome(clinic.engine)
    with writing(clinic.engine) as connection:
        rows = connection.execute(sa.select(tables.outcomes)).all()
        for row in rows:
            connection.execute(tables.outcomes.insert().values({**row._mapping, "id": row.id + 1000}))
    assert confirmed.count(clinic.engine, "toy", before) == 0
    assert confirmed.count(clinic.engine, "toy", 0) == 40


def test_where_nobody_is_left_to_go_back_to_a_person_is_told(clinic):
    clinic.see(160, more_events=0.6)
    retrain("toy", clinic.home)
    clinic.see(120, more_events=0.6)
    assert retrain("toy", clinic.home).steps[-1].step == "promoted"
    stops.retire(clinic.engine, "toy", 1, "superseded", "nurse.joy")
    clinic.see(160, more_events=-0.5)
    done = retrain("toy", clinic.home)
    assert [step.step for step in done.steps] == ["offered"] and "was not rolled back" in done.stands
    assert "MR006" in [one.code for _, one in alerts.undelivered(clinic.engine, ["log"])]


def test_a_candidate_that_was_retired_or_rejected_is_not_tried_again_by_hand(clinic):
    clinic.see(160, more_events=0.6)
    retrain("toy", clinic.home)
    stops.retire(clinic.engine, "toy", 2, "not this one", "nurse.joy")
    assert retrain("toy", clinic.home).steps[-1].step == "ended"
    assert [step.step for step in retrain("toy", clinic.home, "once more").steps] == ["begun", "refused"]
    assert traffic.find(clinic.engine, "toy").lanes == {}


def test_a_canary_answers_a_fixed_share_before_it_answers_all(clinic_of, medimind_home):
    clinic = clinic_of(canary={"share": 0.5, "outcomes": 20})
    clinic.see(160, more_events=0.6)
    retrain("toy", medimind_home)
    clinic.see(120, more_events=0.6)
    done = retrain("toy", medimind_home)
    assert [step.step for step in done.steps] == ["canary"] and clinic.champion.version == 1
    assert traffic.find(clinic.engine, "toy").canary.share == 0.5
    assert traffic.find(clinic.engine, "toy").shadow is None
    clinic.see(120, more_events=0.6)
    done = retrain("toy", medimind_home)
    assert [step.step for step in done.steps] == ["promoted"] and clinic.champion.version == 2
    assert traffic.find(clinic.engine, "toy").canary is None


def test_without_a_trial_in_the_spec_a_person_decides(clinic_of, medimind_home):
    clinic = clinic_of(trial=None, probation=None).see(160, more_events=0.6)
    done = retrain("toy", medimind_home)
    assert [step.step for step in done.steps] == ["begun", "offered"] and "medimind promote toy@2" in done.stands
    assert promote("toy", 2, "its figures are read", medimind_home).new and clinic.champion.version == 2


def test_a_retrained_version_takes_no_other_champions_place_than_the_one_it_was_held_against(clinic):
    clinic.see(160, more_events=0.6)
    retrain("toy", clinic.home)
    clinic.see(160, more_events=0.6)
    assert retrain("toy", clinic.home).steps[-1].step == "promoted"
    grounds = promotions.Grounds(clinic.champion)
    with pytest.raises(PromotionError, match="is not champion any more"):
        promotions.promote(clinic.engine, 2, clinic.champion.report, "tests", "again", grounds)


def test_a_person_who_ends_the_shadow_ends_the_retraining(clinic):
    clinic.see(160, more_events=0.6)
    retrain("toy", clinic.home)
    traffic.end(clinic.engine, traffic.Lane("toy", "shadow"), "enough", "nurse.joy")
    assert [step.step for step in retrain("toy", clinic.home).steps] == ["ended"]


def test_a_shadow_that_a_person_set_is_not_taken_away(clinic):
    clinic.see(160, more_events=0.6)
    mine = traffic.Lane("toy", "shadow")
    traffic.set_route(clinic.engine, mine, traffic.Target(7, clinic.champion.bundle), "mine", "nurse.joy")
    done = retrain("toy", clinic.home)
    assert [step.step for step in done.steps] == ["begun", "offered"] and "--off shadow" in done.stands
    assert traffic.find(clinic.engine, "toy").shadow.version == 7


def test_one_at_a_time_and_none_while_the_model_is_stopped(clinic):
    stops.stop(clinic.engine, "toy", "the lab changed its assay", "nurse.joy")
    assert not retrain("toy", clinic.home, "by hand").steps and "is stopped" in retrain("toy", clinic.home).stands
    stops.lift(clinic.engine, "toy", "it is mended", "nurse.joy")
    with locks.alone(clinic.engine, clinic.home, "toy"), pytest.raises(BusyError, match="being retrained"):
        retrain("toy", clinic.home)


def test_a_disease_without_a_champion_or_with_another_yaml_is_not_retrained(clinic, medimind_home):
    with pytest.raises(LedgerError, match="has no champion"):
        retrain("nobody", medimind_home)
    path = medimind_home.configs / "diseases" / "toy.yaml"
    path.write_text(path.read_text().replace("auroc_drop: 0.1", "auroc_drop: 0.5"))
    with pytest.raises(PromotionError, match="its YAML is not the one"):
        retrain("toy", medimind_home, "by hand")


@pytest.mark.parametrize("moment", [2, 6])
def test_killed_between_any_two_effects_it_goes_on_and_comes_to_the_same(clinic_of, monkeypatch, moment):
    """The n-th effect on the ledger is done, and the process is gone before it knows."""
    clinic = clinic_of(canary={"share": 0.5, "outcomes": 20})
    clinic.see(160, more_events=0.6)
    count = 0

    class Killed(BaseException):
        pass

    def dying(real):
        def call(*given, **named):
            nonlocal count
            done = real(*given, **named)
            count += 1
            if count == moment + 1:
                raise Killed
            return done

        return call

    for module, names in (
        (retraining.retrainings, ["put"]),
        (retraining.traffic, ["set_route", "end"]),
        (retraining.promote, ["offer"]),
        (retraining.candidate, ["make", "gather"]),
    ):
        for name in names:
            monkeypatch.setattr(module, name, dying(getattr(module, name)))

    def on():
        for _ in range(3):
            try:
                return retrain("toy", clinic.home)
            except Killed:
                continue
        raise AssertionError("killed more than once")

    for patients in (120, 120, 100):
        on()
        clinic.see(patients, more_events=0.6)
    on()
    assert steps(clinic) == ["begun", "trial", "canary", "promoted", "kept"]
    assert [version.number for version in registry.versions(clinic.home, "toy")] == [1, 2]
    assert clinic.champion.version == 2 and traffic.find(clinic.engine, "toy").lanes == {}
    assert not check(clinic.engine).problems


# --- several classes


def test_a_model_of_several_classes_goes_the_whole_way(clinic_of_classes):
    clinic = clinic_of_classes(canary={"share": 0.5, "outcomes": 20})
    home = clinic.home

    clinic.see(200, more_events=0.6)
    assert [step.step for step in retrain("toy", home).steps] == ["begun", "trial"]
    clinic.see(140, more_events=0.6)
    assert [step.step for step in retrain("toy", home).steps] == ["canary"]
    clinic.see(200, more_events=0.6)  # half are the canary's, by lot: enough of either outcome
    assert [step.step for step in retrain("toy", home).steps] == ["promoted"]
    clinic.see(100, more_events=0.6)
    assert [step.step for step in retrain("toy", home).steps] == ["kept"]

    present = clinic.predictor(clinic.champion.bundle)
    learned = present.bundle.training["patients"]["train"]["classes"]
    assert clinic.champion.version == 2
    assert list(learned) == ["none", "colon", "lung"] and sum(learned.values()) > 400
    assert not check(clinic.engine).problems


# --- signals


def test_a_model_with_signals_goes_the_whole_way_and_every_answer_of_it_is_replayed(clinic_of_recordings):
    clinic = clinic_of_recordings()
    home = clinic.home

    clinic.see(160, more_events=0.6)
    assert [step.step for step in retrain("toy", home).steps] == ["begun", "trial"]
    clinic.see(120, more_events=0.6)
    assert [step.step for step in retrain("toy", home).steps] == ["promoted"]
    clinic.see(20)

    learned = cohort.load(next((home.home / "retraining" / "toy").glob("*.parquet")))
    assert learned.signals == (100, 64) and len(learned) > 500
    assert clinic.champion.version == 2
    for request in (1, 2, 3):
        again = replay(clinic.engine, home, f"{request}-7")
        assert again.same_features and again.agrees == "to the bit"
        assert len(again.stored.features) == 7 + 2, "of 164 numbers of signals two figures are kept"
    assert not check(clinic.engine).problems


def confirm_without_class(engine, n):
    """Tell so many of the confirmed events again, that they happened and no more."""
    known = confirmed.confirmed(engine, "toy", confirmed.newest_outcome(engine))
    events = [place for place, outcome in zip(known.places, known.outcomes, strict=True) if outcome == 1]
    with writing(engine) as connection:
        for place in events[:n]:
            record(connection, Outcome(prediction_id(*place), None, "toy", 1, now()))
    return len(events)


def test_nothing_is_learned_where_many_events_do_not_say_which_they_are(clinic_of_classes):
    clinic = clinic_of_classes().see(200, more_events=0.6)
    engine, bundle = clinic.engine, clinic.predictor(clinic.champion.bundle).bundle
    events = confirm_without_class(engine, 40)

    with pytest.raises(TooFewError, match=f"of {events} confirmed outcomes with the event, 40 do not say which class"):
        candidate.gather(engine, bundle, confirmed.newest_outcome(engine), (0, 0), clinic.home)


def test_an_outcome_whose_class_nobody_told_is_not_learned_from_and_counted(clinic_of_classes):
    clinic = clinic_of_classes().see(200, more_events=0.6)
    engine, bundle = clinic.engine, clinic.predictor(clinic.champion.bundle).bundle
    confirm_without_class(engine, 7)

    found = candidate.gather(engine, bundle, confirmed.newest_outcome(engine), (0, 0), clinic.home)

    assert found.counts["left_out"]["of an unknown class"] == 7
    assert found.counts["confirmed"] == 200
    patients = found.patients
    assert np.isfinite(patients.label).all()
    assert ((patients.label > 0) == (patients.y == 1)).all(), "the event is one of its classes"
