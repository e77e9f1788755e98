"""The ledger's tables. A change here comes with a migration in ledger/migrations/versions."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

NUMBERS = BigInteger().with_variant(Integer, "sqlite")  # SQLite's INTEGER has 64 bits

# One row a request: its predictions are the positions in its arrays, and a prediction's id is "<request>-<position>".
requests = Table(
    "requests",
    metadata,
    Column("id", NUMBERS, primary_key=True),
    Column("model", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("bundle", String, nullable=False),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("n", Integer, nullable=False),
    Column("risks", LargeBinary, nullable=False),  # n float64
    Column("feature_digests", LargeBinary, nullable=False),  # n SHA-256, of each row's float32 bytes
    Column("bands", JSON, nullable=False),  # n names or null
    Column("features", LargeBinary),  # n x d float32, one figure for each signal; null once purged
    Column("records", JSON),  # n records as they were checked; null once purged
    Column("patients", JSON),  # n keyed hashes or null; null once purged
    Column("idempotency_key", String),  # its SHA-256
    Column("body_digest", String),
    Column("answer", LargeBinary),  # only beside an idempotency key; null once purged
    Column("traffic", Integer),  # the row of `traffic` that sent it to another version than the champion
    Column("classes", JSON),  # of several classes: K names, each with whether it is the event; null without
    Column("class_risks", LargeBinary),  # n x K float64, in the order of `classes`
    Column("labels", JSON),  # n names of the class of least expected cost, or null
    Index("requests_by_model_and_time", "model", "received_at"),
    Index("requests_by_bundle", "model", "bundle", "id", "n"),  # `n`: blocks of predictions are cut from it alone
    Index("requests_by_key", "model", "idempotency_key", unique=True),
    sqlite_autoincrement=True,  # a number is never given twice, not even after a restore
)

references = Table(
    "references",
    metadata,
    Column("id", NUMBERS, primary_key=True),
    Column("reference", String, nullable=False),
    Column("request", NUMBERS, ForeignKey("requests.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Index("references_by_reference", "reference"),
)

# Append-only: of two outcomes of one prediction the later row counts, and both stay on record.
outcomes = Table(
    "outcomes",
    metadata,
    Column("id", NUMBERS, primary_key=True),
    Column("request", NUMBERS, ForeignKey("requests.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("value", Integer, nullable=False),
    Column("observed_at", DateTime(timezone=True), nullable=False),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("label", String),  # of several classes: which one, where it is known
    Index("outcomes_by_prediction", "request", "position"),
)

promotions = Table(
    "promotions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("bundle", String, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("actor", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("report", Text, nullable=False),
    Column("action", String, nullable=False),  # promote, rollback
    Column("evidence", Text),  # JSON: what changed from the champion before, and the paired figures
    Index("promotions_by_model", "model", "id"),
)

# Append-only: what was said of exactly this bundle and report; a person's newest approval or rejection counts.
reviews = Table(
    "reviews",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("bundle", String, nullable=False),
    Column("report", String, nullable=False),  # SHA-256 of its JSON
    Column("verdict", String, nullable=False),  # validated, approved, rejected
    Column("at", DateTime(timezone=True), nullable=False),
    Column("actor", String, nullable=False),  # asserted, not authenticated
    Column("reason", Text, nullable=False),
    Column("trained_by", Text),  # JSON: the actors who trained the bundle; of `validated` alone
    Index("reviews_by_model", "model", "id"),
)

# One row a decision of promotions, stops, traffic and reviews, in the order in which they were taken (ledger/chain.py).
chain = Table(
    "chain",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1, 2, 3, … without a gap
    Column("kind", String, nullable=False),  # the decision's table
    Column("row", Integer, nullable=False),
    Column("about", String, nullable=False),  # NAME or NAME@VERSION
    Column("at", DateTime(timezone=True), nullable=False),
    Column("content", Text, nullable=False),  # JSON: the SHA-256 of each of the row's fields
    Column("previous", String, nullable=False),
    Column("hash", String, nullable=False),
    Index("chain_by_row", "kind", "row"),
)

# Append-only: the newest row of a model and version counts; a null version stands for the whole model.
stops = Table(
    "stops",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String, nullable=False),
    Column("version", Integer),
    Column("stopped", Integer, nullable=False),  # 1, or 0 where the stop was lifted
    Column("at", DateTime(timezone=True), nullable=False),
    Column("actor", String, nullable=False),
    Column("reason", Text, nullable=False),
    Index("stops_by_model", "model", "id"),
)

# Append-only: the newest row of a model, kind and tag counts; a null version ends what the rows before it set.
traffic = Table(
    "traffic",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String, nullable=False),
    Column("kind", String, nullable=False),  # shadow, canary, ab
    Column("version", Integer),
    Column("bundle", String),
    Column("share", Float),  # of a canary
    Column("tag", String),  # of an A/B arm
    Column("at", DateTime(timezone=True), nullable=False),
    Column("actor", String, nullable=False),
    Column("reason", Text, nullable=False),
    Index("traffic_by_model", "model", "id"),
)

# One row a request that a shadow scored as well; its positions are the request's. Holds nothing of a patient.
shadows = Table(
    "shadows",
    metadata,
    Column("id", NUMBERS, primary_key=True),
    Column("request", NUMBERS, ForeignKey("requests.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("bundle", String, nullable=False),
    Column("risks", LargeBinary, nullable=False),  # n float64
    Column("at", DateTime(timezone=True), nullable=False),
    Index("shadows_by_request", "request"),
    Index("shadows_by_bundle", "bundle", "id"),
)

# Append-only: a window is judged again when outcomes come; the newest row of a bundle and number counts.
windows = Table(
    "windows",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("bundle", String, nullable=False),
    Column("number", Integer, nullable=False),  # 1, 2, 3, … of this bundle
    Column("first_request", NUMBERS, nullable=False),  # both ends belong to the window
    Column("first_position", Integer, nullable=False),
    Column("last_request", NUMBERS, nullable=False),
    Column("last_position", Integer, nullable=False),
    Column("n", Integer, nullable=False),
    Column("begins_at", DateTime(timezone=True), nullable=False),
    Column("ends_at", DateTime(timezone=True), nullable=False),
    Column("outcomes", Integer, nullable=False),  # predictions whose outcome was known
    Column("outcomes_to", NUMBERS, nullable=False),  # the newest row of `outcomes` that was read
    Column("judged_at", DateTime(timezone=True), nullable=False),
    Column("report", Text, nullable=False),
    Index("windows_by_bundle", "model", "bundle", "number", "id"),
)

# Append-only, and chained: one row a step of a retraining; the newest row of a model says where its retraining is.
retrainings = Table(
    "retrainings",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String, nullable=False),
    Column("run", Integer, nullable=False),  # 1, 2, 3, … of this model
    Column("step", String, nullable=False),  # begun, waits, trial, canary, promoted, kept, …: ledger/retrainings.py
    Column("version", Integer),  # the candidate's, once it is registered
    Column("bundle", String),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("actor", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", Text),  # JSON
    Index("retrainings_by_model", "model", "id"),
)

# One row a finding, by code and title, that failed in one window or several in a row; it ends when it passes again.
episodes = Table(
    "episodes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("code", String, nullable=False),
    Column("title", String, nullable=False),  # the finding's: a code has one for each feature, field or point
    Column("text", Text, nullable=False),  # what is told; nothing of a patient
    Column("began_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True)),
    Index("episodes_by_model", "model", "id"),
)

# One row for each episode and each channel that is to be told of it; undelivered ones are tried again.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("episode", Integer, ForeignKey("episodes.id"), nullable=False),
    Column("channel", String, nullable=False),  # its kind, and a digest of its address: that may hold a secret
    Column("tries", Integer, nullable=False),
    Column("tried_at", DateTime(timezone=True)),
    Column("delivered_at", DateTime(timezone=True)),
    Index("deliveries_by_episode", "episode", "channel", unique=True),
)

# Records that broke the contract, counted: which field, and how; never a value.
refusals = Table(
    "refusals",
    metadata,
    Column("id", NUMBERS, primary_key=True),
    Column("model", String, nullable=False),
    Column("code", String, nullable=False),
    Column("field", String, nullable=False),  # "" where no field of the contract is to blame
    Column("n", Integer, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Index("refusals_by_model_and_time", "model", "at"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("detail", Text, nullable=False),
)
