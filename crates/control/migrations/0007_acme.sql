-- Accounts at authorities (ACME), their keys sealed; and certificates that are ordered, or could not be had.
CREATE TABLE acme_accounts (
    name TEXT NOT NULL PRIMARY KEY,
    doc TEXT NOT NULL CHECK (json_valid(doc))
) STRICT;
CREATE TABLE acme_orders (
    name TEXT NOT NULL PRIMARY KEY,
    doc TEXT NOT NULL CHECK (json_valid(doc))
) STRICT;
