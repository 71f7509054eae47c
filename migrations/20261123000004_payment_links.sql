-- Payment links: what was asked of Stripe, written down before it is asked.

-- One row a request for a session. The row is the source of the idempotency
-- key (cart_…:v<version>) and of the frozen expiry, so a retry after a crash
-- asks Stripe for exactly the same thing and gets the same session back.
-- cart_id has no foreign key: the row outlives a deleted cart until its
-- session is closed. It holds ids and a URL, nothing of the shopper.
create table payment_links (
    cart_id            text collate "C" not null,
    version            integer     not null check (version > 0),
    status             text        not null default 'pending',
    job_id             uuid        not null,            -- the job that makes it
    session_expires_at timestamptz not null,            -- frozen: part of what Stripe is asked
    attempted_at       timestamptz,                     -- first time Stripe may have seen the request
    session_id         text unique,
    url                text,
    failure            text,                            -- why there is no link, for people
    created_at         timestamptz not null,
    updated_at         timestamptz not null,
    primary key (cart_id, version),
    constraint payment_links_status_known check (status in (
        'pending',         -- asked for; a job is to make it
        'open',            -- a session is open at Stripe
        'closing',         -- it is to be closed at Stripe
        'settling',        -- Stripe was asked and the answer never came: find out, then close
        'processing',      -- the shopper completed it, the money is still under way
        'paid',            -- final
        'payment_failed',  -- final: the money never came
        'closed',          -- final: nobody can pay with it
        'failed')),        -- final: Stripe made none
    constraint payment_links_session_known check (status not in ('open', 'closing') or session_id is not null),
    constraint payment_links_url_known     check (status <> 'open' or url is not null)
) with (fillfactor = 80);

-- Asked for at most once at a time: of twenty requests at once one gets in.
create unique index payment_links_one_pending on payment_links (cart_id) where status = 'pending';
-- At most one session of a cart can take money.
create unique index payment_links_one_open on payment_links (cart_id) where status in ('open', 'closing', 'processing');
-- What maintenance deletes.
create index payment_links_final on payment_links (updated_at) where status in ('paid', 'payment_failed', 'closed', 'failed');

-- The link that goes into mails: one token a cart, for its life. When the cart
-- is deleted the hash stays for a while, so that the link answers "gone".
create table recovery_links (
    token_hash bytea primary key,                       -- SHA-256
    token      text,                                    -- null once the cart is gone
    cart_id    text collate "C" unique references carts (id) on delete set null,
    expires_at timestamptz not null,
    retired_at timestamptz                              -- when the cart was deleted
);
create index recovery_links_retired on recovery_links (retired_at) where retired_at is not null;
