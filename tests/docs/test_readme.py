"""What the README and the docs say is true: the example runs, and what they name is there."""

import re
import subprocess
import sys

import pytest

from configs.settings import ROOT
from configs.spec import Frozen, Spec
from pipelines.check import check
from pipelines.ingest import ingest
from pipelines.prepare import prepare
from pipelines.promote import promote
from pipelines.train import train
from pipelines.validate import validate

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", "data/README.md", "deploy/README.md", "mlflow/README.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
PACKAGES = ("configs", "features", "models", "evidence", "ledger", "pipelines", "serving")


def fenced(kind, holding):
    """The one fenced block of this kind that holds the text."""
    (block,) = (text for text in re.findall(rf"^```{kind}\n(.*?)^```$", README, re.M | re.S) if holding in text)
    return block


def tree():
    """Every path that the README's tree names; a folder's ends with a slash."""
    folders, paths = {}, []
    for line in fenced("text", "configs/").splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        path = folders[depth - 1] + name if depth else name
        if name.endswith("/"):
            folders[depth] = path
        paths.append(path)
    return paths


def models_of(annotation):
    """The Spec's models that a type mentions."""
    if isinstance(annotation, type) and issubclass(annotation, Frozen):
        return {annotation}
    return {model for part in getattr(annotation, "__args__", ()) for model in models_of(part)}


def keys(model):
    """Every key that may stand in a disease's YAML."""
    found = set()
    for name, field in model.model_fields.items():
        found.add(field.alias or name)
        for inner in models_of(field.annotation):
            found |= keys(inner) if inner.__name__ != "Bound" else set()
    return found


def test_the_readme_s_own_csv_becomes_a_champion(medimind_home):
    subprocess.run([sys.executable, "-c", fenced("python", "csv")], cwd=medimind_home.configs.parent, check=True)
    spec = medimind_home.configs / "diseases" / "readmission.yaml"
    spec.write_text(fenced("yaml", "name: readmission"), encoding="utf-8")

    check("readmission", medimind_home)
    ingested = ingest("readmission", medimind_home)
    prepare("readmission", medimind_home)
    train("readmission", medimind_home)
    validated = validate("readmission", medimind_home)
    promoted = promote("readmission", validated.version.number, "its report passes", medimind_home)

    assert (ingested.rows, ingested.kept) == (400, 400)
    assert validated.report.passed
    assert (promoted.new, promoted.alias) == (True, None)
    assert promoted.promotion.bundle == validated.version.bundle
    assert f"AUROC {validated.report.finding('MM001').value:.3f}" in README


def test_every_path_of_the_tree_exists():
    for path in tree():
        place = ROOT / path
        assert place.is_dir() if path.endswith("/") else place.is_file(), path


def test_every_source_file_is_named_in_the_tree():
    files = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    files |= {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml")}
    files |= {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}
    files |= {f"{path.relative_to(ROOT)}/" for path in (ROOT / "tests").iterdir() if list(path.glob("*.py"))}

    missing = {name for name in files if not name.endswith("__init__.py")} - set(tree())

    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_names_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```(?:bash|text)\n(.*?)^```$", text, re.M | re.S) + re.findall(r"`([^`\n]+)`", text))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    cli = (ROOT / "pipelines" / "cli.py").read_text(encoding="utf-8")

    targets = set(re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)", code))
    commands = set(re.findall(r"\bmedimind(?: --debug)? ([a-z]+)\b", code))

    assert {name for name in targets if not re.search(rf"^{name}:", makefile, re.M)} == set()
    assert {name for name in commands if not re.search(rf'^def {name}_?\(|name="{name}"', cli, re.M)} == set()


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_every_link_of_a_page_leads_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")

    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target


def test_every_key_of_the_spec_is_explained():
    text = (ROOT / "docs" / "adding-a-disease.md").read_text(encoding="utf-8")
    explained = re.findall(r"`([A-Za-z0-9_.]+)`", "\n".join(re.findall(r"^\| (`.*?) \|", text, re.M)))

    assert keys(Spec) - {part for name in explained for part in name.split(".")} == set()


def test_every_finding_s_code_is_explained():
    sources = [*(ROOT / "evidence").glob("*.py"), *(ROOT / "pipelines").glob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    text = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")

    assert set(re.findall(r'"(M[MRW]\d{3})"', code)) == set(re.findall(r"^\| (M[MRW]\d{3}) ", text, re.M))
