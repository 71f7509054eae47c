-- API keys, sessions of the dashboard, receipts of erasures, and the audit log.

-- API keys besides API_KEY, with scopes. `api keys` manages them.
create table api_keys (
    id           uuid primary key,
    name         text        not null check (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    key_hash     bytea       not null unique check (octet_length(key_hash) = 32),  -- SHA-256 of the key
    scopes       text[]      not null check (cardinality(scopes) > 0 and scopes <@ array['read', 'write', 'operator', 'support']),
    created_at   timestamptz not null,
    expires_at   timestamptz check (expires_at > created_at),
    revoked_at   timestamptz,                           -- the row stays, because logs name it
    last_used_at timestamptz                            -- to the minute
);
-- The name of a revoked key is free again.
create unique index api_keys_live_names on api_keys (name) where revoked_at is null;

-- Sessions of the dashboard that were signed out early. A session is a signed cookie that no process
-- stores, so its end is stored instead.
create table ended_sessions (
    session_hash bytea primary key check (octet_length(session_hash) = 32),  -- SHA-256 of the cookie's value
    ends_at      timestamptz not null                   -- when it would have ended; then the row is deleted
);

-- Receipts of POST /api/erasure. Without the address or its hash: both would identify the person.
create table erasures (
    id        text primary key,                         -- erasure_ and a UUIDv7 in base 32
    erased_at timestamptz not null,
    removed   json        not null                      -- number of removed records of each kind
);

-- Changes that were made with an API key, through the API or the dashboard. Written in the
-- transaction of the change. Names of keys and ids only, nothing of shoppers.
create table audit_log (
    at      timestamptz not null,
    id      uuid        not null,
    key     text        not null,                       -- its name
    action  text        not null,                       -- such as cart.deleted
    subject text[]      not null,                       -- ids of what was changed, or of what contains it
    count   bigint      not null default 1 check (count >= 0),  -- number of things that were changed
    primary key (at, id)                                -- the order of the log, and for deleting old entries
);
-- Carts that are stored together have one entry, with an id of each: kept in the row.
alter table audit_log alter column subject set storage main;
