-- How far each schedule's times were considered, and what became of the last ones.
CREATE TABLE schedules (
    name TEXT PRIMARY KEY NOT NULL,
    doc  TEXT NOT NULL CHECK (json_valid(doc))
) STRICT;

-- Events about scheduled tasks: a constraint cannot be altered, so the table is made anew under the same numbers.
CREATE TABLE events_2 (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    at           INTEGER NOT NULL,
    subject_kind TEXT    NOT NULL
                 CHECK (subject_kind IN ('fleet', 'host', 'service', 'task', 'scheduledtask', 'file')),
    subject_name TEXT    NOT NULL,
    level        TEXT    NOT NULL CHECK (level IN ('NORMAL', 'WARNING')),
    reason       TEXT    NOT NULL,
    message      TEXT    NOT NULL
) STRICT;

INSERT INTO events_2 SELECT id, at, subject_kind, subject_name, level, reason, message FROM events;
-- A number is never given twice, also when the newest events were pruned.
UPDATE sqlite_sequence SET seq = (SELECT seq FROM sqlite_sequence WHERE name = 'events') WHERE name = 'events_2';
DROP TABLE events;
ALTER TABLE events_2 RENAME TO events;

CREATE INDEX events_by_subject ON events (subject_kind, subject_name, id);
