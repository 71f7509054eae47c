-- Keys to the API besides API_KEY: named, with scopes, kept as hashes. `api keys` manages them.
create table api_keys (
    id           uuid primary key,
    name         text        not null check (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    key_hash     bytea       not null unique check (octet_length(key_hash) = 32),  -- SHA-256 of the key
    scopes       text[]      not null check (cardinality(scopes) > 0 and scopes <@ array['read', 'write', 'operator']),
    created_at   timestamptz not null,
    expires_at   timestamptz check (expires_at > created_at),
    revoked_at   timestamptz,               -- the row stays, so that the log's names mean something
    last_used_at timestamptz                -- to the minute or so; see api/src/auth/key_cache.rs
);

-- A revoked key's name is free again.
create unique index api_keys_live_names on api_keys (name) where revoked_at is null;

-- Every api keeps the live keys in memory and is told here, whoever changes
-- them and by whatever way. That one was used changes nothing for anybody.
create function tell_of_api_keys() returns trigger language plpgsql as $$
begin
    perform pg_notify('api_keys', '');
    return null;
end
$$;

create trigger api_keys_tell after insert or delete or truncate
    or update of name, key_hash, scopes, expires_at, revoked_at on api_keys
    for each statement execute function tell_of_api_keys();
