"""The ledger's file: made once, private, backed up while others write, and never replaced by garbage."""

import os
import re
import signal
import sqlite3
import stat
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from configs.errors import LedgerError
from configs.settings import ROOT, Settings
from ledger import database, stops, tables, traffic
from ledger.database import HEAD, audit, backup, connect, deciding, restore, writing
from ledger.promotions import earlier, find_champion, mark, promote, rollback
from ledger.stops import Stops
from ledger.traffic import Lane, Target, Traffic

CONNECT = """
import sys
from pathlib import Path
from configs.errors import MediMindError
from configs.settings import Settings
from ledger.database import connect, restore
settings = Settings(home=Path(sys.argv[1]), user="nurse.joy")
sys.stdin.readline() if sys.argv[2] == "wait" else None
try:
    restore(settings, Path(sys.argv[3])) if len(sys.argv) > 3 else connect(settings)
    print("done")
except MediMindError as exc:
    print("refused:", exc)
"""
HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("BEGIN IMMEDIATE" if sys.argv[2] == "write" else "BEGIN")
connection.execute("SELECT count(*) FROM audit").fetchone()
if sys.argv[2] == "idle":
    connection.execute("COMMIT")
print("ready", flush=True)
sys.stdin.readline()
"""


AT = datetime(2026, 3, 3, 9, tzinfo=UTC)
REQUEST = {
    "model": "angina",
    "version": 3,
    "bundle": "b" * 64,
    "received_at": AT,
    "n": 1,
    "risks": b"12345678",
    "feature_digests": b"d" * 32,
    "bands": ["alert"],
    "features": b"abcd",
    "records": [{"age_years": 50}],
    "patients": [None],
    "idempotency_key": "k",
    "body_digest": "x",
    "answer": b"said",
}


def path_of(settings):
    return settings.home / "ledger.db"


def entries(settings):
    engine = connect(settings)
    with engine.connect() as connection:
        found = [row.detail for row in connection.execute(sa.select(tables.audit).order_by(tables.audit.c.id))]
    engine.dispose()
    return found


def note(engine, detail):
    with writing(engine) as connection:
        audit(connection, "nurse.joy", "note", detail)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(folder):
    """Every file with its bytes, without the migration's lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "migration.lock"}


def test_the_migrations_make_exactly_the_tables_of_the_code(ledger):
    with ledger.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []


def test_the_newest_migration_is_the_one_that_connect_expects(ledger):
    newest = max(path.name[:4] for path in (ROOT / "ledger" / "migrations" / "versions").glob("[0-9]*.py"))
    assert newest == HEAD
    with ledger.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == HEAD


# --- SQLite and Postgres alike


def of_the_first_release(settings):
    """Make the ledger as the first release left it, one row in every table, and return them all."""
    engine = sa.create_engine(settings.ledger_url)
    config = Config()
    config.set_main_option("script_location", str(ROOT / "ledger" / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    known = sa.MetaData()
    known.reflect(engine)
    who = {"at": AT, "actor": "nurse.joy"}
    promotion = {"model": "angina", "version": 3, "bundle": "b" * 64, "reason": "first", "report": "{}"}
    with engine.begin() as connection:
        for name, row in {
            "requests": REQUEST,
            "references": {"reference": "visit-1", "request": 1, "position": 0},
            "outcomes": {"request": 1, "position": 0, "value": 1, "observed_at": AT, "received_at": AT},
            "promotions": {**promotion, **who},
            "audit": {"action": "promote", "detail": "angina@3", **who},
        }.items():
            connection.execute(known.tables[name].insert().values(row))
    held = contents_of(engine)
    engine.dispose()
    return held


def request(connection, **changed):
    """Put a request on record; its number."""
    return connection.execute(tables.requests.insert().values({**REQUEST, **changed})).inserted_primary_key[0]


def contents_of(engine):
    """Every row of every table but Alembic's, as a mapping."""
    known = sa.MetaData()
    known.reflect(engine)
    with engine.connect() as connection:
        return {
            name: [dict(row._mapping) for row in connection.execute(sa.select(table))]
            for name, table in known.tables.items()
            if name != "alembic_version"
        }


def test_the_code_s_tables_are_the_migrations_on_either_database(engine):
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []


def test_a_ledger_of_the_first_release_is_upgraded_without_loss(machine):
    held = of_the_first_release(machine)
    assert {name: len(rows) for name, rows in held.items()} == dict.fromkeys(held, 1)

    engine = connect(machine)
    now = contents_of(engine)

    later = "traffic", "classes", "class_risks", "labels"
    assert [[row.pop(name) for name in later] for row in now["requests"]] == [[None] * 4]
    assert [row.pop("label") for row in now["outcomes"]] == [None]
    assert [(row.pop("action"), row.pop("evidence")) for row in now["promotions"]] == [("promote", None)]
    assert [(link["kind"], link["row"]) for link in now.pop("chain")] == [("promotions", 1)]
    assert {name: now[name] for name in held} == held
    assert {name: rows for name, rows in now.items() if name not in held} == {
        "stops": [],
        "traffic": [],
        "shadows": [],
        "reviews": [],
        "windows": [],
        "retrainings": [],
        "episodes": [],
        "deliveries": [],
        "refusals": [],
    }
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    engine.dispose()


def test_an_upgraded_ledger_goes_on_counting_where_it_was(machine):
    of_the_first_release(machine)
    engine = connect(machine)
    with writing(engine) as connection:
        assert request(connection, idempotency_key="another", traffic=7) == 2
    engine.dispose()


def test_a_shadow_is_kept_beside_its_request_and_beside_no_other(engine):
    said = {"version": 4, "bundle": "4" * 64, "risks": b"12345678", "at": database.now()}
    with writing(engine) as connection:
        number = request(connection)
        connection.execute(tables.shadows.insert().values(request=number, **said))

    with pytest.raises(sa.exc.IntegrityError), writing(engine) as connection:
        connection.execute(tables.shadows.insert().values(request=number + 1, **said))


def test_what_is_decided_is_read_back_from_either_database(engine, report_on):
    for version in (3, 4):
        promote(engine, version, report_on(str(version) * 64), "nurse.joy", "first")
    stops.stop(engine, "angina", "wrong unit", "nurse.joy")
    stops.retire(engine, "angina", 5, "wrong table", "nurse.joy")
    canary = traffic.set_route(engine, Lane("angina", "canary"), Target(6, "6" * 64, 0.1), "a tenth", "nurse.joy")
    traffic.set_route(engine, Lane("angina", "ab", "east"), Target(6, "6" * 64), "trial", "nurse.joy")
    traffic.end(engine, Lane("angina", "ab", "east"), "enough", "nurse.joy")
    present = find_champion(engine, "angina")
    back = rollback(engine, present, earlier(engine, present)[0], "dr.who", "alarms")

    assert (find_champion(engine, "angina"), back.version) == (back, 3)
    assert stops.find(engine, "angina") == Stops("wrong unit", {5: "wrong table"})
    assert traffic.find(engine, "angina") == Traffic(None, canary, {})
    assert mark(engine) == (3, 2, 3)
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.audit)).scalar() == 8


def test_decisions_are_taken_one_after_the_other_and_reading_goes_on(engine):
    began, order = threading.Event(), []

    def second():
        began.set()
        with deciding(engine):
            order.append("second")

    thread = threading.Thread(target=second)
    with deciding(engine):
        thread.start()
        assert began.wait(10)
        time.sleep(0.3)  # long enough for the second to be let in, if it were
        assert mark(engine) == (0, 0, 0)
        order.append("first")
    thread.join(30)

    assert order == ["first", "second"]


def test_every_file_of_the_ledger_is_readable_by_its_owner_alone(ledger, home):
    note(ledger, "first")
    found = [path for path in home.home.iterdir() if path.name.startswith("ledger.db")]

    assert {path.name for path in found} >= {"ledger.db", "ledger.db-wal"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}
    assert stat.S_IMODE(home.home.stat().st_mode) == 0o700


def test_so_is_one_that_was_readable_by_all(home):
    connect(home).dispose()
    path_of(home).chmod(0o644)
    connect(home).dispose()
    assert stat.S_IMODE(path_of(home).stat().st_mode) == 0o600


def test_foreign_keys_are_kept(ledger):
    with pytest.raises(sa.exc.IntegrityError), writing(ledger) as connection:
        connection.execute(tables.references.insert().values(reference="r", request=99, position=0))


def test_several_processes_may_open_a_new_ledger_at_once(home, child):
    at_once = [child(CONNECT, home.home, "wait") for _ in range(3)]
    for process in at_once:
        process.stdin.write("go\n")
        process.stdin.flush()

    assert [process.communicate(timeout=120)[0].strip() for process in at_once] == ["done"] * 3
    assert entries(home) == []


@pytest.mark.parametrize("largest", [4096, 8192, 20_000, 40_000])
def test_a_disk_that_fills_up_in_a_migration_costs_nothing_but_a_second_try(home, child, largest):
    said, _ = child(CONNECT, home.home, "now", largest_file=largest).communicate(timeout=60)
    assert said.startswith("refused: the ledger sqlite:///")

    with connect(home).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []


def test_a_transaction_that_fails_leaves_nothing(ledger, home):
    def half():
        with writing(ledger) as connection:
            audit(connection, "nurse.joy", "note", "half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert entries(home) == []


def test_a_ledger_that_somebody_else_keeps_locked_is_a_ledger_error(home, child, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.2)
    engine = connect(home)
    holder = child(HOLD, path_of(home), "write")
    assert holder.stdout.readline() == "ready\n"

    with pytest.raises(LedgerError, match=r"could not be written: database is locked. Nothing of it was kept"):
        note(engine, "second")

    holder.communicate("\n", timeout=60)
    note(engine, "third")
    assert entries(home) == ["third"]


@pytest.mark.parametrize("revision", ["0000", "9999", "f00d"])
def test_a_ledger_of_another_release_is_refused_and_stays_as_it_is(ledger, home, revision):
    with ledger.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})

    with pytest.raises(LedgerError, match=f"is of another release .*{revision}.*this one knows migration {HEAD}"):
        connect(home)
    with ledger.connect() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == revision


@pytest.mark.parametrize("place", ["a folder", "a file/ledger.db", "nowhere/ledger.db", "/proc/ledger.db", "text"])
def test_a_ledger_that_cannot_be_opened_is_a_ledger_error(tmp_path, place):
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a file").write_text("")
    (tmp_path / "text").write_text("Dear diary, this is no database at all.\n" * 200)

    with pytest.raises(LedgerError, match=r"the ledger sqlite:///.* cannot be opened: "):
        connect(Settings(home=tmp_path / "home", ledger=f"sqlite:///{tmp_path / place}"))


@pytest.mark.parametrize("home", ["/proc/medimind", "a file/home"])
def test_a_home_that_cannot_be_made_is_a_ledger_error(tmp_path, home):
    (tmp_path / "a file").write_text("")
    with pytest.raises(LedgerError, match="cannot be opened"):
        connect(Settings(home=tmp_path / home))


@pytest.mark.parametrize(
    "url",
    [
        "ledger.db",
        "oracel://nurse:s3cret@here/x",
        "mysql+oursql://nurse:s3cret@here/x",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_a_url_that_is_no_ledgers_is_a_ledger_error_without_its_password(tmp_path, url):
    with pytest.raises(LedgerError, match=r"ledger|LEDGER") as caught:
        connect(Settings(home=tmp_path / "home", ledger=url))
    assert "s3cret" not in str(caught.value)


# --- backup and restore


def test_a_backup_restores_what_it_held(ledger, home, tmp_path):
    note(ledger, "before")
    backup(home, tmp_path / "backup.db")
    note(ledger, "after")
    ledger.dispose()

    kept = restore(home, tmp_path / "backup.db")

    assert entries(home) == ["before", "backup.db"]  # and that there was a restore
    with sqlite3.connect(kept) as replaced:
        details = [row[0] for row in replaced.execute("SELECT detail FROM audit ORDER BY id")]
    assert details == ["before", "backup.db", "after"]


def test_a_backup_of_the_first_release_is_restored_and_upgraded(ledger, home, tmp_path):
    old = Settings(home=tmp_path / "old")
    old.private(old.home)
    held = of_the_first_release(old)
    ledger.dispose()

    restore(home, path_of(old))

    engine = connect(home)
    now = contents_of(engine)
    engine.dispose()
    assert now["promotions"] == [{**row, "action": "promote", "evidence": None} for row in held["promotions"]]
    assert [row["detail"] for row in now["audit"]] == ["angina@3", "ledger.db"]
    assert now["stops"] == []


def test_a_backup_is_private_whole_and_alone(ledger, home, tmp_path):
    folder = tmp_path / "backups"
    folder.mkdir()
    note(ledger, "before")

    backup(home, folder / "backup.db")

    assert files(folder) == ["backup.db"]
    assert stat.S_IMODE((folder / "backup.db").stat().st_mode) == 0o600


def test_a_prediction_id_is_never_given_twice_not_even_after_two_restores(ledger, home, tmp_path):
    def answer(engine):
        with writing(engine) as connection:
            return request(connection, idempotency_key=None)

    given = [answer(ledger)]
    backup(home, tmp_path / "backup.db")
    given.append(answer(ledger))
    ledger.dispose()
    for _ in range(2):
        restore(home, tmp_path / "backup.db")
        engine = connect(home)
        given += [answer(engine), answer(engine)]
        engine.dispose()

    assert len(set(given)) == len(given) == 6


def test_a_restore_leaves_the_backup_as_it_was(ledger, home, tmp_path):
    folder = tmp_path / "backups"
    folder.mkdir()
    note(ledger, "before")
    backup(home, folder / "backup.db")
    ledger.dispose()
    before = contents(folder)

    restore(home, folder / "backup.db")

    assert contents(folder) == before


def test_what_is_restored_is_private_and_so_is_what_was_kept(ledger, home, tmp_path):
    backup(home, tmp_path / "backup.db")
    (tmp_path / "backup.db").chmod(0o644)
    ledger.dispose()

    kept = restore(home, tmp_path / "backup.db")

    assert stat.S_IMODE(kept.stat().st_mode) == stat.S_IMODE(path_of(home).stat().st_mode) == 0o600


def test_two_restores_in_a_moment_keep_both_ledgers(ledger, home, tmp_path):
    note(ledger, "first")
    backup(home, tmp_path / "backup.db")
    ledger.dispose()

    kept = {restore(home, tmp_path / "backup.db"), restore(home, tmp_path / "backup.db")}

    assert len(kept) == 2
    assert all(path.exists() for path in kept)


def test_a_ledger_that_is_gone_can_be_restored(ledger, home, tmp_path):
    note(ledger, "before")
    backup(home, tmp_path / "backup.db")
    ledger.dispose()
    for path in home.home.glob("ledger.db*"):
        path.unlink()

    restore(home, tmp_path / "backup.db")

    assert entries(home)[0] == "before"


def test_a_backup_never_overwrites(ledger, home, tmp_path):
    (tmp_path / "backup.db").write_text("precious")
    with pytest.raises(LedgerError, match="a backup never overwrites"):
        backup(home, tmp_path / "backup.db")
    assert (tmp_path / "backup.db").read_text() == "precious"


def test_a_backup_while_somebody_writes_is_taken(ledger, home, child, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.2)
    note(ledger, "before")
    with ledger.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 200")
    holder = child(HOLD, path_of(home), "read")
    assert holder.stdout.readline() == "ready\n"

    backup(home, tmp_path / "backup.db")

    holder.communicate("\n", timeout=60)
    with sqlite3.connect(tmp_path / "backup.db") as copy:
        assert copy.execute("SELECT detail FROM audit").fetchall() == [("before",)]


@pytest.mark.parametrize("place", ["nowhere/backup.db", "a file/backup.db", "/proc/backup.db"])
def test_a_backup_that_cannot_be_written_is_a_ledger_error_and_leaves_nothing(ledger, home, tmp_path, place):
    (tmp_path / "a file").write_text("")
    with pytest.raises(LedgerError, match="the backup could not be written"):
        backup(home, tmp_path / place)
    assert files(tmp_path) == ["a file", "home"]


def test_without_a_ledger_there_is_nothing_to_back_up(home, tmp_path):
    with pytest.raises(LedgerError, match="the backup could not be written"):
        backup(home, tmp_path / "backup.db")
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["a b.db", "50%41.db", "what?.db", "#1.db", "Zürich.db"])
def test_a_backup_may_have_any_name(ledger, home, tmp_path, name):
    note(ledger, "before")
    backup(home, tmp_path / name)
    ledger.dispose()

    restore(home, tmp_path / name)

    assert entries(home)[0] == "before"


def truncated(path):
    os.truncate(path, path.stat().st_size // 2)


def scribbled(path):
    content = bytearray(path.read_bytes())
    content[5000:9000] = b"\xaa" * 4000
    path.write_bytes(content)


def of_another_release(path):
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()


def another_database(path):
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (cake TEXT)")
    connection.close()


GARBAGE = {
    "text": lambda path: path.write_text("Dear diary\n" * 500),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": truncated,
    "scribbled": scribbled,
    "another release": of_another_release,
    "another database": another_database,
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_not_restored_and_nothing_is_changed(ledger, home, tmp_path, damage):
    note(ledger, "precious")
    backup(home, tmp_path / "backup.db")
    damage(tmp_path / "backup.db")
    before = contents(home.home)

    with pytest.raises(LedgerError, match="Nothing was changed"):
        restore(home, tmp_path / "backup.db")
    assert contents(home.home) == before
    assert entries(home)[0] == "precious"


@pytest.mark.parametrize("how", ["write", "read", "idle"])
def test_a_ledger_that_another_process_has_open_is_not_replaced(ledger, home, child, tmp_path, how):
    note(ledger, "precious")
    backup(home, tmp_path / "backup.db")
    note(ledger, "newer")
    ledger.dispose()
    holder = child(HOLD, path_of(home), how)
    assert holder.stdout.readline() == "ready\n"
    names = files(home.home)

    with pytest.raises(LedgerError, match=r"is in use .*stop the server first. Nothing was changed"):
        restore(home, tmp_path / "backup.db")
    assert files(home.home) == names
    holder.communicate("\n", timeout=60)
    assert entries(home) == ["precious", "backup.db", "newer"]

    restore(home, tmp_path / "backup.db")
    assert entries(home) == ["precious", "backup.db"]


def test_a_disk_that_fills_up_in_a_restore_leaves_the_ledger_as_it_was(ledger, home, child, tmp_path):
    note(ledger, "precious")
    backup(home, tmp_path / "backup.db")
    note(ledger, "newer")
    ledger.dispose()
    names = files(home.home)

    said, _ = child(CONNECT, home.home, "now", tmp_path / "backup.db", largest_file=8192).communicate(timeout=60)

    assert said.startswith("refused:") and "Nothing was changed" in said
    assert files(home.home) == names
    assert entries(home) == ["precious", "backup.db", "newer"]


@pytest.mark.parametrize("verb", [backup, restore])
def test_a_ledger_on_a_server_is_left_to_the_servers_own_tools(tmp_path, verb):
    with pytest.raises(
        LedgerError, match=re.escape(f"{verb.__name__}: the ledger is on postgresql; use its own tools")
    ):
        verb(Settings(home=tmp_path, ledger="postgresql://127.0.0.1/ledger"), tmp_path / "backup.db")


def test_a_process_that_is_killed_while_it_writes_leaves_a_whole_ledger(ledger, home, child):
    note(ledger, "precious")
    writer = child(HOLD.replace("SELECT count(*) FROM audit", "DELETE FROM audit"), path_of(home), "write")
    assert writer.stdout.readline() == "ready\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate(timeout=60)

    assert entries(home) == ["precious"]
    with sqlite3.connect(Path(path_of(home))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
