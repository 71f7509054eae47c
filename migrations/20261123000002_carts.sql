-- Carts that shoppers left behind.

create table carts (
    id             text collate "C" primary key,        -- cart_ and a UUIDv7 in base 32
    customer_email text        not null,
    customer_name  text        not null,
    items          json        not null,                -- json, not jsonb: answered as it was written, byte for byte
    total_minor    bigint      not null check (total_minor >= 0),  -- minor units of currency, the server's own sum
    currency       text        not null,                -- ISO 4217 in lower case, frozen with the cart
    status         text        not null default 'abandoned',
    abandoned_at   timestamptz not null default now(),
    recovered_at   timestamptz,
    expired_at     timestamptz,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    constraint carts_status_known     check (status in ('abandoned', 'recovered', 'expired')),
    constraint carts_recovered_at_set check ((status = 'recovered') = (recovered_at is not null)),
    constraint carts_expired_at_set   check ((status = 'expired') = (expired_at is not null))
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

-- The list, newest first, with a status and without.
create index carts_by_creation on carts (created_at desc, id desc);
create index carts_by_status on carts (status, created_at desc, id desc);
-- What expiry looks for.
create index carts_to_expire on carts (abandoned_at) where status = 'abandoned';

-- The product writes status and its times together. Hand-made SQL often sets
-- the status alone ("update carts set status = 'expired' …"): complete it
-- instead of refusing it. The WHEN is false for every row the product writes.
create function carts_complete_status_times() returns trigger language plpgsql as $$
begin
    new.recovered_at := case when new.status = 'recovered' then coalesce(new.recovered_at, now()) end;
    new.expired_at   := case when new.status = 'expired'   then coalesce(new.expired_at, now()) end;
    return new;
end $$;

create trigger carts_complete_status_times
    before insert or update of status on carts for each row
    when (((new.status = 'recovered') <> (new.recovered_at is not null))
       or ((new.status = 'expired') <> (new.expired_at is not null)))
    execute function carts_complete_status_times();

-- Idempotency-Key of POST /api/carts. Hashes only: a client may put anything
-- into its key, and the body is personal data.
create table idempotency_keys (
    key_hash   bytea primary key,
    body_hash  bytea       not null,
    cart_id    text        not null,                    -- no foreign key: a deleted cart answers 404
    created_at timestamptz not null default now()
);
create index idempotency_keys_created on idempotency_keys (created_at);
