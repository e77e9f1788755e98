"""MLflow on a SQLite of its own: a version is registered once, whole, and comes back as it went in."""

import dataclasses
import shutil
import socket
import time

import pytest
from numpy.testing import assert_array_equal

from configs.errors import RegistryError
from configs.settings import ROOT, Settings
from evidence import checks, plots
from evidence.report import Finding, Report
from ledger import registry
from ledger.chain import Head, find_head
from ledger.database import connect
from ledger.promotions import promote
from models.bundle import load, write
from models.training import fit_family
from models.tuning import Trial

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def report(disease, trained, predictor, task_of):
    """The real validation report of the trained bundle."""
    test, external = disease.cohort.only("test"), disease.cohort.only("external")
    logistic = fit_family("logistic", disease.cohort.only("train"), task_of(disease.plan)).log_odds(test.X)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evidence.metrics.RESAMPLES", 60)
        return checks.judge(
            trained, disease.cohort, predictor.risk(test.X), predictor.risk(external.X), {"logistic": logistic}
        )


@pytest.fixture(scope="module")
def pictures(disease, predictor):
    test = disease.cohort.only("test")
    return plots.draw("Angina", test.y, predictor.risk(test.X))


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A machine whose registry every test of this file adds to: MLflow takes seconds to make a database."""
    return Settings(home=tmp_path_factory.mktemp("home of 100% joy"), user="nurse.joy")


@pytest.fixture(scope="module")
def first(machine, trained, report, pictures):
    """The trained bundle's version, and whether it was new."""
    return registry.register(machine, trained, report, pictures, "abc123")


@pytest.fixture(scope="module")
def other(trained, disease_of, document, tmp_path_factory):
    """`other(name, threshold)`: a bundle of another disease."""

    def make(name, threshold=0.5):
        spec = disease_of({**document, "name": name}, 500, 1).spec
        documents = {
            "spec": spec.document,
            "calibration": dataclasses.asdict(trained.calibration),
            "thresholds": {"alert": threshold},
            "conformal": {},
            "reference": trained.reference,
            "selftest": trained.selftest,
            "training": trained.training,
        }
        folder = tmp_path_factory.mktemp("other") / name
        return write(folder, documents, lambda files: shutil.copy(trained.folder / "model.onnx", files) and None)

    return make


@pytest.fixture
def client(machine, first):
    import mlflow

    return mlflow.MlflowClient(machine.registry_uri, machine.registry_uri)


def report_of(bundle, verdict="passed"):
    gated = Finding("MM001", "AUROC", verdict, 0.81, ">= 0.8", "100 test patients", (0.75, 0.87))
    return Report(bundle.spec.name, "validation", bundle.digest, "f" * 64, (gated,))


def test_a_new_bundle_is_a_new_version(first, trained):
    version, new = first
    assert new
    assert (str(version), version.bundle, version.passed) == ("angina@1", trained.digest, True)


def test_registering_it_again_makes_no_other_version(machine, first, trained, report):
    again, new = registry.register(machine, trained, report, {}, "def456")

    assert (again, new) == (registry.find(machine, "angina", 1), False)
    assert [str(version) for version in registry.versions(machine, "angina")] == ["angina@1"]


def test_a_version_that_passed_is_the_candidate(machine, first):
    assert registry.find(machine, "angina", 1).aliases == ("candidate",)


def test_what_a_reviewer_needs_stands_in_the_version(client, trained, report):
    version = client.get_model_version("angina", "1")

    assert version.tags == {
        "bundle_digest": trained.digest,
        "spec_digest": trained.spec.digest,
        "data_fingerprint": report.data,
        "git_commit": "abc123",
        "validation": "passed",
    }
    assert trained.spec.title in version.description and trained.spec.intended_use in version.description
    assert "report **passed**" in version.description
    for finding in report.findings:
        if finding.limit:
            assert f"| {finding.code} | {finding.title} |" in version.description
            assert finding.limit in version.description
    assert len(version.description) < 5000  # the column's width in MLflow's tables, which Postgres keeps to
    assert client.get_registered_model("angina").description.startswith(trained.spec.title)


def test_a_description_of_many_subgroups_still_fits(trained, report):
    many = [
        dataclasses.replace(report.findings[0], code="MM009", title=f"AUROC, site {n}", limit=None) for n in range(200)
    ]
    assert len(registry.describe(trained, dataclasses.replace(report, findings=(*report.findings, *many)))) < 5000


def test_report_plots_and_figures_lie_beside_the_run(client, trained, report, pictures):
    run = client.get_run(client.get_model_version("angina", "1").run_id)

    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {"report.json", *pictures}
    assert run.data.metrics["MM001 AUROC"] == report.finding("MM001").value
    assert run.data.metrics["MM001 AUROC low"] == report.finding("MM001").interval[0]
    assert run.data.params["family"] == trained.training["family"]
    assert run.data.params["patients_test"] == str(trained.training["patients"]["test"]["n"])
    assert run.info.status == "FINISHED"


def test_the_signature_names_every_feature(machine, first, disease):
    import mlflow

    mlflow.set_tracking_uri(machine.registry_uri)
    signature = mlflow.models.get_model_info("models:/angina/1").signature
    assert [column.name for column in signature.inputs] == list(disease.plan.names)
    assert [column.name for column in signature.outputs] == ["risk"]


def test_mlflows_own_loader_gives_the_same_risks(machine, first, disease, predictor):
    import mlflow
    import pandas as pd

    mlflow.set_tracking_uri(machine.registry_uri)
    model = mlflow.pyfunc.load_model("models:/angina@candidate")
    test = disease.cohort.only("test")
    rows = pd.DataFrame(test.X.astype(float), columns=list(test.names))

    assert_array_equal(model.predict(rows), predictor.risk(test.X))
    assert_array_equal(model.predict(rows[list(test.names)[::-1]]), predictor.risk(test.X))


def test_mlflows_own_loader_takes_a_signal_as_a_list_of_what_the_model_sees(tmp_path, reader, recording):
    import mlflow
    import pandas as pd

    here = Settings(home=tmp_path / "home", user="nurse.joy")
    registry.register(here, reader.bundle, report_of(reader.bundle), {}, "abc123")
    people = [{"age_years": 61, "sex": "female", "ecg": recording(number)} for number in range(3)]
    X = reader.features([reader.check(person) for person in people])
    plan = reader.plan
    rows = pd.DataFrame({feature.name: X[:, place].astype(float) for place, feature in enumerate(plan.features)})
    for signal in plan.signals:
        rows[signal.name] = [row.tolist() for row in X[:, signal.place].astype(float)]

    mlflow.set_tracking_uri(here.registry_uri)
    model = mlflow.pyfunc.load_model("models:/toy/1")

    assert_array_equal(model.predict(rows[list(reversed(rows.columns))]), reader.risk(X))


def test_what_is_fetched_is_what_was_registered(machine, first, trained, report):
    version, _ = first
    with registry.fetch(machine, version) as (folder, said):
        assert load(folder).digest == trained.digest
        assert said == report
    assert not folder.exists()


def test_no_code_and_no_pickle_is_registered(machine, first):
    endings = {path.suffix for path in (machine.home / "mlflow" / "artifacts").rglob("*") if path.is_file()}
    assert endings <= {".json", ".onnx", ".png", ".yaml", ".yml", ".txt", ""}


def test_no_patient_stands_in_any_file_of_the_registry(machine, first, marker):
    files = [path for path in machine.home.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert marker.encode() not in path.read_bytes(), path.name


def test_nothing_is_written_outside_the_home(first):
    assert not (ROOT / "mlruns").exists() and not (ROOT / "mlflow.db").exists()


def test_the_registry_is_readable_by_its_owner_alone(machine, first):
    assert (machine.home / "mlflow").stat().st_mode & 0o077 == 0


def test_a_version_that_failed_is_registered_and_no_candidate(machine, other):
    good, bad = other("fever", 0.5), other("fever", 0.6)
    registry.register(machine, good, report_of(good), {}, "abc")

    version, new = registry.register(machine, bad, report_of(bad, "failed"), {}, "abc")

    assert (new, version.passed, version.number, version.aliases) == (True, False, 2, ())
    assert [v.aliases for v in registry.versions(machine, "fever")] == [("candidate",), ()]
    with registry.fetch(machine, version) as (_, said):
        assert not said.passed


def test_the_same_bundle_with_another_report_is_another_version(machine, other):
    bundle = other("gout")
    registry.register(machine, bundle, report_of(bundle, "failed"), {}, "abc")
    version, new = registry.register(machine, bundle, report_of(bundle), {}, "abc")
    assert (new, version.number, version.aliases) == (True, 2, ("candidate",))


def test_the_champions_alias_is_copied_once_and_repaired(machine, other):
    import mlflow

    bundles = [other("mumps", threshold) for threshold in (0.5, 0.6)]
    for bundle in bundles:
        registry.register(machine, bundle, report_of(bundle), {}, "abc")
    engine = connect(machine)
    champion = promote(engine, 1, report_of(bundles[0]), "nurse.joy", "first")
    head = find_head(engine)
    engine.dispose()
    client = mlflow.MlflowClient(machine.registry_uri, machine.registry_uri)

    assert registry.copy_champion(machine, champion, head) is True
    assert registry.copy_champion(machine, champion, head) is False
    assert registry.find(machine, "mumps", 1).aliases == ("champion",)
    assert client.get_model_version("mumps", "1").tags["promoted_by"] == "nurse.joy"

    assert registry.heads(machine, "mumps") == {1: head}
    registry.copy_champion(machine, champion, Head(head.length - 1, "0" * 64))
    assert registry.heads(machine, "mumps") == {1: head}, "what may be all that is left of a longer chain stays"

    client.set_registered_model_alias("mumps", "champion", "2")  # somebody clicked
    assert registry.copy_champion(machine, champion, head) is True
    assert registry.find(machine, "mumps", 1).aliases == ("champion",)
    assert registry.find(machine, "mumps", 2).aliases == ("candidate",)


def test_a_champion_that_the_registry_does_not_hold_is_a_registry_error(machine, first, ledger, report_on):
    champion = promote(ledger, 99, report_on("b" * 64), "nurse.joy", "")
    with pytest.raises(RegistryError):
        registry.copy_champion(machine, champion, find_head(ledger))


def test_an_unknown_version_is_refused_with_the_known_ones(machine, first):
    with pytest.raises(RegistryError, match=r"angina@7 is not registered. Registered: angina@1"):
        registry.find(machine, "angina", 7)
    with pytest.raises(RegistryError, match=r"stroke@1 is not registered. Registered: none"):
        registry.find(machine, "stroke", 1)
    assert registry.versions(machine, "stroke") == []


def test_a_version_whose_files_are_gone_is_a_registry_error(machine, other):
    bundle = other("lupus")
    version, _ = registry.register(machine, bundle, report_of(bundle), {}, "abc")
    for path in (machine.home / "mlflow" / "artifacts" / "lupus").rglob("MANIFEST.json"):
        path.unlink()

    with (
        pytest.raises(RegistryError, match="lupus@1: the registry holds no bundle for it"),
        registry.fetch(machine, version),
    ):
        pass


def test_a_report_that_cannot_be_read_is_a_registry_error(machine, other):
    bundle = other("sprue")
    version, _ = registry.register(machine, bundle, report_of(bundle), {}, "abc")
    for path in (machine.home / "mlflow" / "artifacts" / "sprue").rglob("report.json"):
        path.write_text("half a rep")

    with (
        pytest.raises(RegistryError, match="sprue@1: the registry holds no report for it"),
        registry.fetch(machine, version),
    ):
        pass


@pytest.fixture
def nobody(tmp_path):
    """A registry's address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return Settings(home=tmp_path / "home", registry=f"http://nurse:s3cret@127.0.0.1:{port}")


def test_a_registry_that_does_not_answer_is_a_registry_error_soon(nobody, trained, report, report_on):
    begun = time.monotonic()
    for call in (
        lambda: registry.versions(nobody, "angina"),
        lambda: registry.register(nobody, trained, report, {}, "abc"),
    ):
        with pytest.raises(RegistryError, match=r"the registry http://.*127\.0\.0\.1.* failed .*Is it up") as caught:
            call()
        assert "s3cret" not in str(caught.value)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    "place", ["sqlite:////proc/mlflow.db", "sqlite:///{}/text", "sqlite:///{}", "nonsense://there"]
)
def test_a_registry_that_cannot_be_opened_is_a_registry_error_soon(tmp_path, place):
    (tmp_path / "text").write_text("Dear diary, this is no database at all.\n" * 200)
    begun = time.monotonic()
    with pytest.raises(RegistryError, match="the registry"):
        registry.versions(Settings(home=tmp_path / "home", registry=place.format(tmp_path)), "angina")
    assert time.monotonic() - begun < 10


def test_a_home_that_cannot_be_made_is_a_registry_error(tmp_path):
    (tmp_path / "a file").write_text("")
    with pytest.raises(RegistryError, match="the registry"):
        registry.versions(Settings(home=tmp_path / "a file" / "home"), "angina")


def test_nothing_of_mlflow_is_imported_with_the_module(child):
    code = (
        "import sys, ledger.registry; print([name for name in ('mlflow', 'pandas', 'sklearn') if name in sys.modules])"
    )
    assert child(code).communicate(timeout=60)[0].strip() == "[]"


def test_a_networks_epochs_are_figures_of_a_run_nested_in_its_training_s(machine, client, monkeypatch):
    with registry.watched(machine, "learning") as watched:
        for part in ("fold 1", "all"):
            for epoch, loss in enumerate((0.7, float("nan"), 0.5)):
                watched.epoch("tabular_net", part, epoch, {"log_loss": loss, "batch": 64.0})
        watched.trial("boosted", "all", Trial(0, {}, (0.7,), "complete"))

    experiment = client.get_experiment_by_name("learning").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert sorted(runs) == ["boosted, all, trial 0", "tabular_net, all", "tabular_net, fold 1", "train learning"]
    for name in ("tabular_net, fold 1", "tabular_net, all"):
        run = runs[name]
        assert run.data.tags["mlflow.parentRunId"] == runs["train learning"].info.run_id
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "log_loss")
        assert [(figure.step, figure.value) for figure in history] == [
            (0, 0.7),
            (2, 0.5),
        ]  # what is no number is left out
        assert [figure.step for figure in client.get_metric_history(run.info.run_id, "batch")] == [0, 1, 2]


def test_an_epoch_is_told_while_the_network_still_learns(machine, client, monkeypatch):
    monkeypatch.setattr(registry, "SECONDS_UNTOLD", -1)
    with registry.watched(machine, "slowly") as watched:
        watched.epoch("waveform", "all", 0, {"log_loss": 0.7})
        experiment = client.get_experiment_by_name("slowly").experiment_id
        found = {run.info.run_name: run for run in client.search_runs([experiment])}["waveform, all"]
        assert (found.data.metrics, found.info.status) == ({"log_loss": 0.7}, "RUNNING")


def test_a_training_s_trials_are_runs_nested_in_its_own(machine, client):
    with registry.watched(machine, "searched") as watched:
        watched.trial("boosted", "fold 2", Trial(0, {}, (0.7, 0.6), "complete"))
        watched.trial("boosted", "all", Trial(1, {"leaves": 7, "rate": 0.25}, (0.9,), "pruned"))
        watched.trial("boosted", "all", Trial(2, {"leaves": 9, "rate": 0.5}, (), "failed"))

    runs = client.search_runs([client.get_experiment_by_name("searched").experiment_id])
    parent = next(run for run in runs if run.info.run_name == "train searched")
    trials = {run.info.run_name: run for run in runs if run is not parent}
    assert {run.data.tags["mlflow.parentRunId"] for run in trials.values()} == {parent.info.run_id}
    assert sorted(trials) == ["boosted, all, trial 1", "boosted, all, trial 2", "boosted, fold 2, trial 0"]
    pruned = trials["boosted, all, trial 1"]
    assert pruned.data.params == {"leaves": "7", "rate": "0.25"}
    assert (pruned.data.metrics, pruned.data.tags["state"]) == ({"log_loss": 0.9}, "pruned")
    history = client.get_metric_history(trials["boosted, fold 2, trial 0"].info.run_id, "log_loss")
    assert [(told.step, told.value) for told in history] == [(1, 0.7), (2, 0.6)]
    assert [trials[name].info.status for name in sorted(trials)] == ["FINISHED", "FAILED", "FINISHED"]
    assert parent.info.status == "FINISHED"


def test_a_training_that_tells_nothing_leaves_no_run_and_no_registry(tmp_path):
    home = Settings(home=tmp_path / "home")
    with registry.watched(home, "angina"):
        pass
    assert not home.home.exists()


def test_a_training_that_failed_is_a_failed_run(machine, client):
    def fails():
        with registry.watched(machine, "failing") as watched:
            watched.trial("boosted", "all", Trial(0, {}, (0.7,), "complete"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    runs = client.search_runs([client.get_experiment_by_name("failing").experiment_id])
    assert {run.info.run_name: run.info.status for run in runs} == {
        "train failing": "FAILED",
        "boosted, all, trial 0": "FINISHED",
    }


def test_a_registry_that_is_away_is_told_of_once_and_the_training_goes_on(tmp_path, caplog):
    with socket.socket() as taken:  # nobody listens there: taken, and not listened on
        taken.bind(("127.0.0.1", 0))
        away = Settings(home=tmp_path, registry=f"http://127.0.0.1:{taken.getsockname()[1]}")
        with registry.watched(away, "angina") as watched:
            for number in range(3):
                watched.trial("boosted", "all", Trial(number, {}, (0.7,), "complete"))

    said = [record.getMessage() for record in caplog.records if record.name == "medimind"]
    assert len(said) == 1 and said[0].endswith("The training goes on, and is not watched there.")
