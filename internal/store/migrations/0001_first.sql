-- Times are UTC nanoseconds since 1970, 0 for none. Durations are nanoseconds.

-- One living runner: one VM. An ended runner's row is deleted; its events stay.
CREATE TABLE runners (
    name         TEXT    NOT NULL PRIMARY KEY,
    pool         TEXT    NOT NULL,
    node         TEXT    NOT NULL,
    vmid         INTEGER NOT NULL UNIQUE,
    template     INTEGER NOT NULL,
    phase        TEXT    NOT NULL,
    since        INTEGER NOT NULL,
    born         INTEGER NOT NULL,
    asked_at     INTEGER NOT NULL,
    upid         TEXT    NOT NULL,
    cloned_at    INTEGER NOT NULL,
    mac          TEXT    NOT NULL,
    started_at   INTEGER NOT NULL,
    address      TEXT    NOT NULL,
    host_key     TEXT    NOT NULL,
    registration TEXT    NOT NULL,
    runner_id    INTEGER NOT NULL,
    job          INTEGER NOT NULL,
    adopted      INTEGER NOT NULL,
    cause        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- The furthest that is known of each job. Completed ones stay as tombstones until they are pruned,
-- so that an event that comes late cannot revive them.
CREATE TABLE jobs (
    id         INTEGER NOT NULL PRIMARY KEY,
    repo       TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    labels     TEXT    NOT NULL, -- a JSON array, '' for none
    status     TEXT    NOT NULL,
    conclusion TEXT    NOT NULL,
    runner_id  INTEGER NOT NULL,
    runner     TEXT    NOT NULL, -- a registration's name
    owner      TEXT    NOT NULL, -- the name of the VM that the registration belongs to
    created    INTEGER NOT NULL,
    received   INTEGER NOT NULL,
    changed    INTEGER NOT NULL,
    checked    INTEGER NOT NULL
) STRICT;
CREATE INDEX jobs_open ON jobs (id) WHERE status <> 'completed';
CREATE INDEX jobs_done ON jobs (owner) WHERE status = 'completed';

-- What happened, in the order in which it was stored.
CREATE TABLE events (
    id     INTEGER NOT NULL PRIMARY KEY,
    at     INTEGER NOT NULL,
    kind   TEXT    NOT NULL,
    runner TEXT    NOT NULL,
    pool   TEXT    NOT NULL,
    node   TEXT    NOT NULL,
    vmid   INTEGER NOT NULL,
    job    INTEGER NOT NULL,
    took   INTEGER NOT NULL,
    waited INTEGER NOT NULL,
    class  TEXT    NOT NULL,
    note   TEXT    NOT NULL
) STRICT;

CREATE INDEX events_job ON events (job) WHERE job <> 0;

-- Webhook deliveries whose effect is stored, by X-GitHub-Delivery.
CREATE TABLE deliveries (
    guid TEXT    NOT NULL PRIMARY KEY,
    at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_at ON deliveries (at);

-- Who works with this database, for people. What keeps a second one out is the lock beside the file.
CREATE TABLE lease (
    id     INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    holder TEXT    NOT NULL,
    since  INTEGER NOT NULL
) STRICT;

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
