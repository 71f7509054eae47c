-- Carts that shoppers left behind.

create table carts (
    id                text collate "C" primary key,     -- cart_ and a UUIDv7 in base 32
    external_id       text collate "C",                 -- the shop's own id; "C": compared byte by byte, as the importer sorts
    customer_email    text        not null,
    customer_name     text,
    items             json        not null,             -- json, not jsonb: returned byte for byte as stored
    adjustments       json        not null default '[]',  -- shipping, taxes, discounts
    total_minor       bigint      not null check (total_minor >= 0),  -- minor units of currency, computed by the server
    paid_minor        bigint,                           -- sum of the paid links at the recovery; null: no payment recovered the cart
    refunded_minor    bigint,                           -- refunds and lost disputes; null: none
    currency          text        not null,             -- ISO 4217, lower case
    status            text        not null default 'abandoned',
    status_changed_at timestamptz,                      -- null: the status never changed
    status_reason     text,                             -- why the status changed; null: it did not, or unknown
    status_key        text,                             -- name of the API key that changed it, if one did
    locale            text,                             -- BCP 47
    accepts_marketing boolean,                          -- null: not known
    metadata          json        not null default '{}',  -- the shop's own data
    abandoned_at      timestamptz not null default now(),
    recovered_at      timestamptz,
    expired_at        timestamptz,
    anonymized_at     timestamptz,                      -- when the personal data was removed
    imported          boolean     not null default false,
    created_key       text,                             -- name of the API key that stored it; null: unknown
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now(),
    constraint carts_status_known        check (status in ('abandoned', 'recovered', 'expired')),
    constraint carts_status_reason_known check (status_reason in ('age', 'operator', 'payment', 'import', 'api', 'sql')),
    constraint carts_recovered_at_set    check ((status = 'recovered') = (recovered_at is not null)),
    constraint carts_expired_at_set      check ((status = 'expired') = (expired_at is not null)),
    constraint carts_dates_finite        check (isfinite(created_at) and isfinite(abandoned_at) and isfinite(recovered_at)),
    constraint carts_money_not_negative  check (paid_minor >= 0 and refunded_minor >= 0),
    constraint carts_external_id_length  check (char_length(external_id) between 1 and 200)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

-- For the list, newest first, read backwards: new carts go to the right end of an ascending index,
-- where pages fill up. The list of all carts merges the three.
create index carts_abandoned_by_creation on carts (created_at, id) where status = 'abandoned';
create index carts_recovered_by_creation on carts (created_at, id) where status = 'recovered';
create index carts_expired_by_creation on carts (created_at, id) where status = 'expired';
create index carts_recovered_by_recovery on carts (recovered_at, id) where status = 'recovered';
-- For expiry.
create index carts_to_expire on carts (abandoned_at) where status = 'abandoned';
-- A cart that is sent or imported again is a conflict here.
create unique index carts_external_id on carts (external_id) where external_id is not null;

-- Completes SQL by hand that sets only the status ("update carts set status = 'expired' …"). The WHEN
-- condition is false for every row that the product writes.
create function carts_complete_status() returns trigger language plpgsql as $$
begin
    new.recovered_at := case when new.status = 'recovered' then coalesce(new.recovered_at, now()) end;
    new.expired_at   := case when new.status = 'expired'   then coalesce(new.expired_at, now()) end;
    if tg_op = 'UPDATE' then
        new.status_reason := 'sql';
        if new.status_changed_at is not distinct from old.status_changed_at then
            new.status_changed_at := now();
        end if;
        if new.updated_at = old.updated_at then
            new.updated_at := now();
        end if;
    end if;
    return new;
end $$;

create trigger carts_complete_status
    before insert or update of status on carts for each row
    when (((new.status = 'recovered') <> (new.recovered_at is not null))
       or ((new.status = 'expired') <> (new.expired_at is not null)))
    execute function carts_complete_status();

-- Idempotency-Key headers of POST /api/carts. Hashes only: a key may contain anything, and the body
-- is personal data.
create table idempotency_keys (
    key_hash   bytea primary key,
    body_hash  bytea       not null,
    cart_id    text        not null,                    -- no foreign key: a deleted cart answers 404
    created_at timestamptz not null default now()
);
create index idempotency_keys_created on idempotency_keys (created_at);
create index idempotency_keys_cart on idempotency_keys (cart_id);
