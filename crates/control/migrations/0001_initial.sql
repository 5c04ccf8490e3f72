-- Times are milliseconds since the Unix epoch. `doc` columns are JSON and the only truth of their row:
-- the columns beside them are computed from it, for constraints and for people who look.

-- The manifests in force, one row an object.
CREATE TABLE desired (
    kind        TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    file        TEXT    NOT NULL,
    line        INTEGER NOT NULL CHECK (line >= 0),
    labels      TEXT    NOT NULL CHECK (json_valid(labels)),
    annotations TEXT    NOT NULL CHECK (json_valid(annotations)),
    spec        TEXT    NOT NULL CHECK (json_valid(spec)),
    PRIMARY KEY (kind, name)
) STRICT;

-- `spec` is NULL while a revision is known only from labels of containers.
CREATE TABLE revisions (
    family     TEXT    NOT NULL,
    number     INTEGER NOT NULL CHECK (number >= 0),
    hash       TEXT    NOT NULL,
    spec       TEXT             CHECK (json_valid(spec)),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (family, number)
) STRICT;

CREATE TRIGGER revisions_are_immutable BEFORE UPDATE ON revisions
WHEN NEW.family <> OLD.family OR NEW.number <> OLD.number OR NEW.hash <> OLD.hash
  OR (OLD.spec IS NOT NULL AND (NEW.spec IS NOT OLD.spec OR NEW.created_at <> OLD.created_at))
BEGIN
    SELECT RAISE(ABORT, 'a revision is never altered');
END;

CREATE TABLE hosts (
    name           TEXT PRIMARY KEY NOT NULL,
    doc            TEXT NOT NULL CHECK (json_valid(doc)),
    schedulability TEXT NOT NULL AS (doc ->> '$.schedulability') VIRTUAL
                   CHECK (schedulability IN ('ACTIVE', 'CORDONED', 'DRAINING')),
    lost_since     TEXT AS (doc ->> '$.lostSince') VIRTUAL
) STRICT;

-- With their deployments.
CREATE TABLE services (
    name TEXT PRIMARY KEY NOT NULL,
    doc  TEXT NOT NULL CHECK (json_valid(doc))
) STRICT;

-- `doc` is the task without its containers.
CREATE TABLE tasks (
    id             TEXT PRIMARY KEY NOT NULL,
    doc            TEXT    NOT NULL CHECK (json_valid(doc)),
    service        TEXT    NOT NULL AS (doc ->> '$.service') VIRTUAL,
    slot           INTEGER NOT NULL AS (doc ->> '$.slot') VIRTUAL,
    revision       TEXT    NOT NULL AS (doc ->> '$.revision') VIRTUAL,
    host           TEXT    NOT NULL AS (doc ->> '$.host') VIRTUAL,
    desired_status TEXT    NOT NULL AS (doc ->> '$.desiredStatus') VIRTUAL
                   CHECK (desired_status IN ('RUNNING', 'STOPPED')),
    last_status    TEXT    NOT NULL AS (doc ->> '$.lastStatus') VIRTUAL
                   CHECK (last_status IN ('PROVISIONING', 'PENDING', 'ACTIVATING', 'RUNNING', 'DEACTIVATING',
                                          'STOPPING', 'DEPROVISIONING', 'STOPPED')),
    health_status  TEXT    NOT NULL AS (doc ->> '$.healthStatus') VIRTUAL
                   CHECK (health_status IN ('HEALTHY', 'UNHEALTHY', 'UNKNOWN'))
) STRICT;

-- Written with their task.
CREATE TABLE containers (
    task         TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    doc          TEXT NOT NULL CHECK (json_valid(doc)),
    created_name TEXT NOT NULL AS (doc ->> '$.createdName') VIRTUAL,
    runtime_id   TEXT AS (doc ->> '$.runtimeId') VIRTUAL,
    state        TEXT AS (doc ->> '$.state') VIRTUAL,
    PRIMARY KEY (task, name)
) STRICT;

-- Host ports. The key is what keeps two tasks off one port; a task gives its ports back when it is STOPPED.
CREATE TABLE allocations (
    host     TEXT    NOT NULL,
    port     INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    protocol TEXT    NOT NULL CHECK (protocol IN ('tcp', 'udp')),
    task     TEXT    NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    PRIMARY KEY (host, port, protocol)
) STRICT, WITHOUT ROWID;

CREATE INDEX allocations_by_task ON allocations (task);

-- The last complete look at each host. The long columns come last: when only the times changed, SQLite leaves the
-- pages that hold the rest alone.
CREATE TABLE observations (
    host        TEXT PRIMARY KEY NOT NULL,
    started_at  INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    identity    TEXT    NOT NULL CHECK (json_valid(identity)),
    containers  TEXT    NOT NULL CHECK (json_valid(containers))
) STRICT;

-- The fleet's own numbers: one row.
CREATE TABLE fleet (
    id  INTEGER PRIMARY KEY CHECK (id = 1),
    doc TEXT NOT NULL CHECK (json_valid(doc))
) STRICT;

-- AUTOINCREMENT: a number is never given twice, also after old rows went.
CREATE TABLE events (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    at           INTEGER NOT NULL,
    subject_kind TEXT    NOT NULL CHECK (subject_kind IN ('fleet', 'host', 'service', 'task', 'file')),
    subject_name TEXT    NOT NULL,
    level        TEXT    NOT NULL CHECK (level IN ('NORMAL', 'WARNING')),
    reason       TEXT    NOT NULL,
    message      TEXT    NOT NULL
) STRICT;

CREATE INDEX events_by_subject ON events (subject_kind, subject_name, id);

CREATE TABLE decisions (
    id  INTEGER PRIMARY KEY AUTOINCREMENT,
    at  INTEGER NOT NULL,
    doc TEXT    NOT NULL CHECK (json_valid(doc))
) STRICT;
