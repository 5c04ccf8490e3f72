-- Certificates of load balancers; their keys are sealed by a key that is not kept here.
CREATE TABLE certificates (
    name TEXT NOT NULL PRIMARY KEY,
    doc TEXT NOT NULL CHECK (json_valid(doc))
) STRICT;
