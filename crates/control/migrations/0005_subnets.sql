-- How subnets are cut into slices, and which slice is whose.
CREATE TABLE subnets (
    name TEXT NOT NULL PRIMARY KEY,
    doc TEXT NOT NULL CHECK (json_valid(doc))
) STRICT;
