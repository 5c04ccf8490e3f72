-- Volumes that have one place, and the moves of them.
CREATE TABLE volumes (
    cluster TEXT NOT NULL,
    name    TEXT NOT NULL,
    doc     TEXT NOT NULL CHECK (json_valid(doc)),
    host    TEXT NOT NULL AS (doc ->> '$.host') VIRTUAL,
    PRIMARY KEY (cluster, name)
) STRICT;
