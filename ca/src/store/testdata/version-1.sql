-- What the first release of the schema left behind: one certificate.
CREATE TABLE issuance (
    serial TEXT NOT NULL UNIQUE,
    spiffe_id TEXT NOT NULL,
    caller TEXT NOT NULL,
    attestor TEXT NOT NULL,
    not_before INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    requested_ttl INTEGER NOT NULL,
    shortened INTEGER NOT NULL,
    key_sha256 TEXT NOT NULL,
    issued_at INTEGER NOT NULL
);
CREATE INDEX issuance_by_id ON issuance (spiffe_id, issued_at);
CREATE TABLE join_token (
    secret_sha256 TEXT NOT NULL PRIMARY KEY,
    spiffe_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER,
    used_key_sha256 TEXT
) WITHOUT ROWID;
INSERT INTO issuance VALUES ('0a', 'spiffe://cluster.local/ns/shop/sa/web', '127.0.0.1:1', 'join-token', 1799999940,
    1800003600, 0, 0, 'k', 1800000000);
PRAGMA user_version = 1;
