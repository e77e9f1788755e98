"""What a reviewer types: the review page and the reporting exports of a registered version."""

import json


def test_the_review_page_of_a_version_is_written_and_said_where(machine, medimind):
    said = medimind("review", "toy@1")

    path = machine.reports / "toy-1-review.html"
    assert said.code == 0 and str(path) in "".join(said.out.split())
    page = path.read_text(encoding="utf-8")
    assert "This version is the champion, toy@1." in page
    assert page.count("<svg") >= 5
    assert path.stat().st_mode & 0o077 == 0


def test_a_version_may_be_written_as_two_words(machine, medimind):
    assert medimind("review", "picky", 1).code == 0
    page = (machine.reports / "picky-1-review.html").read_text(encoding="utf-8")
    assert "✕ Failed" in page and "medimind promote picky@1" in page and "there is no champion" in page


def test_the_exports_go_to_the_terminal_or_to_a_file(machine, medimind, tmp_path):
    tripod, card = medimind("report", "toy@1", "--format", "tripod"), medimind("report", "toy", 1, "--format", "card")
    chai = medimind("report", "toy@1", "--format", "chai", "--output", tmp_path / "chai.md")

    assert (tripod.code, card.code, chai.code) == (0, 0, 0)
    assert tripod.out.startswith("# TRIPOD+AI: toy@1\n")
    assert json.loads(card.out)["version"] == 1
    assert chai.out == "" and (tmp_path / "chai.md").read_text(encoding="utf-8").startswith(
        "# Applied model card: toy@1"
    )


def test_what_is_not_there_is_named(machine, medimind):
    for words, told in (
        (("review", "toy@9"), "toy@9 is not registered. Registered: toy@1"),
        (("review", "toy"), "'toy' is no version"),
        (("review", "toy@1", 1), "'toy@1@1' is no version"),
        (("report", "toy@1", "--format", "pdf"), "--format 'pdf': is none; expected one of tripod, chai, card."),
        (("report", "nobody", 1, "--format", "card"), "nobody@1 is not registered. Registered: none."),
    ):
        said = medimind(*words)
        assert said.code == 2 and told in said.err, said
    assert not list(machine.reports.glob("toy-9*"))
