"""A version becomes champion once, with its bundle whole in the store, whoever else is at work."""

import subprocess
import sys

import pytest

from configs.errors import BundleError, PromotionError
from configs.settings import ROOT
from ledger import registry
from ledger.database import connect
from ledger.promotions import find_champion
from models.bundle import get
from pipelines.ingest import ingest
from pipelines.prepare import prepare
from pipelines.promote import promote, repair_aliases
from pipelines.train import train
from pipelines.validate import validate


@pytest.fixture
def bundle(medimind_home):
    ingest("toy", medimind_home)
    prepare("toy", medimind_home)
    return train("toy", medimind_home)


def test_a_champion_whose_bundle_was_damaged_in_the_store_is_made_whole_by_promoting_it_again(medimind_home, bundle):
    validate("toy", medimind_home)
    assert promote("toy", 1, "first", medimind_home).new
    (medimind_home.store / bundle.digest / "thresholds.json").write_text("{}")
    with pytest.raises(BundleError, match=r"thresholds\.json is not what the manifest says"):
        get(bundle.digest, medimind_home)

    again = promote("toy", 1, "again", medimind_home)

    assert not again.new
    assert get(bundle.digest, medimind_home).thresholds == bundle.thresholds
    assert repair_aliases(medimind_home) == {"toy": None}


def test_two_validations_at_once_register_one_version(medimind_home, bundle):
    command = [sys.executable, "-m", "pipelines.cli", "validate", "toy"]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]

    for process in both:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors.decode()

    assert [version.number for version in registry.versions(medimind_home, "toy")] == [1]


def test_a_report_that_was_forged_in_the_registry_promotes_nobody(medimind_home):
    path = medimind_home.configs / "diseases" / "toy.yaml"
    path.write_text(path.read_text().replace("auroc: '>= 0.60'", "auroc: '>= 0.99'"))
    for verb in (ingest, prepare, train, validate):
        verb("toy", medimind_home)
    with pytest.raises(PromotionError, match="does not pass"):
        promote("toy", 1, "it does not", medimind_home)
    (kept,) = (medimind_home.home / "mlflow").rglob("report.json")
    kept.write_text(kept.read_text().replace('"verdict": "failed"', '"verdict": "passed"'))
    with pytest.raises(PromotionError, match="exactly this bundle got exactly this report"):
        promote("toy", 1, "forged", medimind_home)
    assert find_champion(connect(medimind_home), "toy") is None
