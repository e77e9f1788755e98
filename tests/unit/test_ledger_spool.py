"""What is answered while the ledger is away stands on disk, whole, in its order, until the ledger has it."""

import dataclasses
import shutil
import stat

import numpy as np
import pytest

from configs.errors import LedgerError, RecordError
from ledger.database import writing
from ledger.predictions import (
    Entry,
    feature_digest,
    feature_digests,
    find,
    idempotency,
    keep_all,
    reserve,
    window,
)
from ledger.spool import Spool

FILL_THE_DISK = """
import sys
from pathlib import Path
from configs.errors import LedgerError
from ledger.spool import Spool
theirs, mine = (Spool(Path(folder)) for folder in sys.argv[1:])
entries = theirs.oldest(2)
mine.append(entries[0])
try:
    mine.append(entries[1])
except LedgerError as exc:
    print("refused:", exc)
print(mine.pending)
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def entry(answered):
    """`entry(number, key)`: a request of two records that was answered under this number."""

    def make(number, key=None, **changed):
        told = {"references": [f"visit {number}", None], "patients": [None, "hash"], "traffic": number % 2 or None}
        keyed = idempotency(key, b"body") if key else None
        return Entry(
            [answered(2, seed=number, **{**told, **changed})], keyed, lambda given: repr(given).encode(), [number]
        )

    return make


def filled(folder, *entries):
    spool = Spool(folder)
    for entry in entries:
        spool.append(entry)
    return spool


def left_by_one_that_died(folder, *entries):
    """The folder as a worker leaves it that is killed: its file, and nobody who holds it."""
    spool = filled(folder, *entries)
    copies = [(path, path.read_bytes()) for path in folder.iterdir()]
    spool.forget(spool.pending)
    spool.close()
    for path, content in copies:
        path.write_bytes(content)
    return copies[0][0] if copies else None


def same(one, other):
    """Whether two entries say the same, to the bit."""
    assert len(one.rows) == len(other.rows)
    for mine, theirs in zip(one.rows, other.rows, strict=True):
        for field in dataclasses.fields(mine):
            a, b = getattr(mine, field.name), getattr(theirs, field.name)
            same_bits = isinstance(a, np.ndarray) and (a.tobytes(), a.shape, a.dtype) == (b.tobytes(), b.shape, b.dtype)
            assert same_bits or a == b, field.name
    return (one.numbers, one.idempotency) == (other.numbers, other.idempotency)


def bring(ledger, spool):
    """One turn of a writer that dies between its commit and `forget`."""
    with writing(ledger) as connection:
        keep_all(connection, spool.oldest(1000))


def test_an_entry_comes_back_as_it_was_from_another_process(folder, entry):
    sent = [entry(1), entry(2, "k"), entry(3, features=np.full((2, 0), 0, np.float32)), entry(4, bands=["Ü", None])]
    left_by_one_that_died(folder, *sent)

    spool = Spool(folder)

    assert spool.pending == 4
    assert all(same(mine, theirs) for mine, theirs in zip(sent, spool.oldest(9), strict=True))
    assert spool.oldest(9)[1].answer([2]) == b"[2]"  # the very bytes that its key got
    assert [found.numbers for found in spool.oldest(2)] == [[1], [2]]


def test_a_request_of_two_versions_comes_back_with_both(folder, entry, answered):
    both = dataclasses.replace(entry(1), rows=[answered(2), answered(1, version=4)], numbers=[1, 2])
    left_by_one_that_died(folder, both)

    assert same(Spool(folder).oldest(1)[0], both)


def test_what_was_said_by_class_comes_back_and_reaches_the_ledger(folder, entry, by_class, ledger):
    said = by_class(2, seed=3)
    left_by_one_that_died(folder, entry(1, by_class=said))

    spool = Spool(folder)
    back = spool.oldest(1)[0].rows[0].by_class
    bring(ledger, spool)

    assert (back.risks.tobytes(), back.events, back.labels) == (said.risks.tobytes(), said.events, said.labels)
    assert [find(ledger, f"1-{n}").risks["lung"] for n in (0, 1)] == said.risks[:, 2].tolist()


def test_the_digests_of_rows_that_are_not_kept_whole_come_back_and_reach_the_ledger(folder, entry, ledger):
    whole = np.random.default_rng(3).normal(size=(2, 100)).astype(np.float32)
    left_by_one_that_died(folder, entry(1, digests=feature_digests(whole)))

    bring(ledger, Spool(folder))

    assert [find(ledger, f"1-{n}").feature_digest for n in (0, 1)] == [feature_digest(row) for row in whole]
    assert len(find(ledger, "1-0").features) == 2


def test_an_entry_without_classes_stands_in_the_file_as_an_earlier_release_wrote_it(folder, entry):
    filled(folder, entry(1))
    (path,) = folder.iterdir()
    assert not [word for word in (b"class", b"labels", b"digests") if word in path.read_bytes()]


def test_it_is_for_its_owner_alone_and_gone_when_the_ledger_has_it(folder, entry):
    spool = filled(folder, entry(1))
    (path,) = folder.iterdir()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    spool.forget(1)
    assert path.stat().st_size == 0
    spool.close()
    assert list(folder.iterdir()) == []


def test_no_folder_is_made_before_it_is_needed(folder):
    spool = Spool(folder)
    spool.close()
    assert spool.pending == 0 and not folder.exists()


def test_what_the_ledger_lacks_stays_for_the_next_worker(folder, entry):
    spool = filled(folder, *(entry(number) for number in range(1, 6)))
    spool.forget(2)
    spool.close()

    after = Spool(folder)

    assert [found.numbers for found in after.oldest(9)][-3:] == [[3], [4], [5]]


def test_a_worker_that_is_alive_keeps_its_file(folder, entry):
    spool = filled(folder, entry(1))

    assert Spool(folder).pending == 0
    spool.close()
    assert Spool(folder).pending == 1


def test_what_others_left_comes_before_what_is_its_own_and_their_files_go(folder, entry):
    left_by_one_that_died(folder, entry(1), entry(2))
    spool = Spool(folder)
    spool.append(entry(3))

    assert [found.numbers for found in spool.oldest(9)] == [[1], [2], [3]]
    spool.forget(3)
    assert len(list(folder.iterdir())) == 1  # its own
    spool.close()
    assert list(folder.iterdir()) == []


def test_a_worker_that_dies_between_the_commit_and_the_forgetting_puts_nothing_on_record_twice(ledger, folder, entry):
    with writing(ledger) as connection:
        numbers = reserve(connection, 3)
    left_by_one_that_died(folder, *(entry(number, key=f"k{number}" if number == 2 else None) for number in numbers))
    for _ in range(2):
        killed = Spool(folder)
        bring(ledger, killed)
        killed.close()
    last = Spool(folder)
    bring(ledger, last)
    last.forget(last.pending)

    found = window(ledger, "angina", "b" * 64, None, None)
    assert len(found) == 6
    for number in numbers:
        assert find(ledger, f"{number}-1").risk == entry(number).rows[0].risks[1]


def test_an_entry_that_was_not_written_whole_is_left_out_and_those_before_it_are_not(folder, entry):
    """It was never answered: the answer leaves after the write."""
    path = left_by_one_that_died(folder, entry(1), entry(2))
    whole = path.read_bytes()
    first = len(whole) // 2
    for end in (*range(first, first + 12), len(whole) - 1):
        path.write_bytes(whole[:end])
        spool = Spool(folder)
        assert [found.numbers for found in spool.oldest(9)] == [[1]]
        spool.close()


def test_zeros_that_a_loss_of_power_left_behind_the_last_entry_are_no_entry(folder, entry):
    path = left_by_one_that_died(folder, entry(1))
    whole = path.read_bytes()
    for zeros in (1, 8, 9, 4096):
        path.write_bytes(whole + bytes(zeros))
        spool = Spool(folder)
        assert spool.pending == 1
        spool.close()

    path.write_bytes(whole + bytes(16) + whole)
    with pytest.raises(LedgerError, match="damaged"):
        Spool(folder)


def test_a_damaged_entry_is_told_and_the_file_stays(folder, entry):
    path = left_by_one_that_died(folder, entry(1), entry(2))
    content = bytearray(path.read_bytes())
    content[40] ^= 0xFF
    path.write_bytes(content)

    with pytest.raises(LedgerError, match=f"{path.name}: an entry of this spool is damaged; keep the file"):
        Spool(folder)
    assert path.read_bytes() == content


def test_a_disk_that_is_full_costs_the_entry_and_none_before_it(tmp_path, folder, entry, child):
    left = left_by_one_that_died(tmp_path / "theirs", entry(1), entry(2))
    room = left.stat().st_size * 3 // 4

    said, _ = child(FILL_THE_DISK, tmp_path / "theirs", folder, largest_file=room).communicate(timeout=60)

    assert said.split("\n")[0].startswith("refused: the ledger does not answer, and its spool failed too")
    assert said.split("\n")[1] == "1"
    assert [found.numbers for found in Spool(folder).oldest(9)] == [[1]]


def test_a_key_gets_its_first_answer_and_another_body_an_error(folder, entry):
    spool = filled(folder, entry(1, "k"))

    assert spool.before(entry(2, "k")) == b"[1]"
    assert spool.before(entry(2, "another")) is None
    assert spool.before(entry(2)) is None
    assert spool.before(entry(2, "k", model="sepsis")) is None
    told = spool.before(dataclasses.replace(entry(2, "k"), idempotency=idempotency("k", b"other")))
    assert isinstance(told, RecordError)


def test_a_key_that_an_earlier_worker_answered_gets_that_answer(folder, entry):
    left_by_one_that_died(folder, entry(1, "k"))
    assert Spool(folder).before(entry(2, "k")) == b"[1]"


def test_a_copy_of_the_folder_holds_what_the_folder_holds(tmp_path, folder, entry):
    """A backup that is taken while the ledger is away."""
    filled(folder, entry(1), entry(2))
    shutil.copytree(folder, tmp_path / "copy")
    assert Spool(tmp_path / "copy").pending == 2
