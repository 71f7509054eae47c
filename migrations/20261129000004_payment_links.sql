-- Payment links. A request is stored before Stripe is called.

-- One row per requested session. The row determines the idempotency key (cart_…:v<version>) and the
-- expiry, so a retry after a crash sends Stripe the same request and gets the same session. No
-- foreign key: the row outlives a deleted cart until its session is closed. Ids and a URL only,
-- nothing of the shopper.
--
-- (Without a check of requested_by and failure_code: Postgres parses each check for each statement,
-- 2 µs per step of a link. Two types in common/src/payment_links take their place.)
create table payment_links (
    cart_id            text collate "C" not null,
    version            integer     not null check (version > 0),
    status             text        not null default 'pending',
    requested_by       text,                            -- 'api', 'shopper' or 'replacement'
    requested_key      text,                            -- name of the API key that requested it; null: of none, or unknown
    job_id             uuid        not null,            -- the job that creates the session
    amount_minor       bigint,                          -- of the request; a session of another amount changes nothing
    currency           text,                            -- of the request
    session_expires_at timestamptz not null,            -- of the request, by Postgres' clock
    settings           jsonb,                           -- of the session, as the first attempt stored them: retries repeat them
    replacements       smallint    not null default 0 check (replacements >= 0),  -- of requests before this one that it replaces, in a row
    attempted_at       timestamptz,                     -- when Stripe may have received the request first
    opened_at          timestamptz,                     -- when the session was created
    ended_at           timestamptz,                     -- when it left 'pending', 'open' and 'closing'
    session_id         text unique,
    url                text,
    livemode           boolean,                         -- of the session; null: unknown
    payment_intent     text,                            -- pi_… of the session; null: unknown
    paid_minor         bigint,                          -- what was paid, according to Stripe, in minor units of currency; null: not paid
    paid_at            timestamptz,                     -- when it was paid, according to Stripe; null: not paid
    asked_at           timestamptz,                     -- when reconciliation last requested the session from Stripe; null: never
    refunded_minor     bigint,                          -- refunds and lost disputes of the payment; null: none
    failure            text,                            -- why there is no link, for people
    failure_code       text,                            -- the same as a code, without personal data
    search_began_at    timestamptz,                     -- when the search for a lost session last began in Stripe's list
    search_after       text,                            -- cs_…: where it goes on; null: it reached the end
    created_at         timestamptz not null,
    updated_at         timestamptz not null,
    primary key (cart_id, version),
    constraint payment_links_status_known check (status in (
        'pending',         -- requested; a job creates the session
        'open',            -- Stripe has an open session
        'closing',         -- the session is to be closed at Stripe
        'settling',        -- Stripe was called and did not answer: find the session, then close it
        'processing',      -- the shopper completed it, the payment is in progress
        'paid',            -- final
        'payment_failed',  -- final
        'closed',          -- final: can't be paid
        'failed')),        -- final: Stripe created none
    constraint payment_links_session_known check (status not in ('open', 'closing') or session_id is not null),
    constraint payment_links_url_known     check (status <> 'open' or url is not null)
) with (fillfactor = 80);

-- At most one request of a cart at a time.
create unique index payment_links_one_pending on payment_links (cart_id) where status = 'pending';
-- At most one session of a cart can take money.
create unique index payment_links_one_open on payment_links (cart_id) where status in ('open', 'closing', 'processing');
-- For reconciliation: sessions that ended without a known outcome, and payments in progress. (No index
-- has updated_at, so that an attempt, which changes no status, changes no index.)
create index payment_links_ended on payment_links (session_expires_at) where status in ('open', 'closing');
create index payment_links_in_progress on payment_links (ended_at) where status = 'processing';
-- A PaymentIntent belongs to one session.
create unique index payment_links_payment_intent on payment_links (payment_intent) where payment_intent is not null;
-- For deleting old rows.
create index payment_links_final on payment_links (ended_at) where status in ('paid', 'payment_failed', 'closed', 'failed');

-- The link for e-mails: one token per cart, for its life. After the cart was deleted the hash stays
-- for a while, so that the link answers 410.
create table recovery_links (
    token_hash bytea primary key,                       -- SHA-256
    token      text,                                    -- null: the cart was deleted
    cart_id    text collate "C" unique references carts (id) on delete set null,
    expires_at timestamptz not null,
    retired_at timestamptz,                             -- when the cart was deleted
    opened_at  timestamptz,                             -- when an opening was last stored
    openings   integer not null default 0               -- number of stored openings
);
create index recovery_links_retired on recovery_links (retired_at) where retired_at is not null;

-- Events from Stripe. Ids only: a body contains the shopper's address.
create table stripe_events (
    id          text primary key,                       -- evt_…: a repeated delivery is a conflict here
    kind        text        not null,
    object_id   text,                                   -- cs_…, pi_…, ch_…, re_… or du_…
    cart_id     text,
    created_at  timestamptz not null,                   -- when it happened, according to Stripe
    received_at timestamptz not null,
    effect      text        not null,                   -- what it changed
    reason      text                                    -- why a payment of ours changed nothing; shown to the operator
);
create index stripe_events_received on stripe_events (received_at);
create index stripe_events_with_a_reason on stripe_events (received_at) where reason is not null;

-- Money of a payment that went back, or may: the sum of its refunds (one row for each charge), refunds
-- that failed, and disputes. Ids and amounts only. The events may arrive before the payment's own;
-- they wait here until a payment link has the PaymentIntent. No foreign key: a row outlives its cart
-- as long as the link does.
create table payment_reversals (
    id             text primary key,                    -- ch_…, re_… or du_… of Stripe
    payment_intent text        not null,                -- pi_…
    cart_id        text collate "C",                    -- of the payment link with the PaymentIntent; null: none so far
    link           integer,                             -- the link's version
    state          text        not null check (state in (
        'refunded',    -- a charge: the sum of its refunds
        'failed',      -- a refund that failed or was cancelled
        'open',        -- a dispute or inquiry
        'won',         -- a dispute: nothing was withdrawn, or it was returned
        'lost')),      -- a dispute: the money is gone
    amount_minor   bigint      not null check (amount_minor >= 0),  -- minor units of currency
    currency       text        not null,                -- ISO 4217, lower case
    livemode       boolean,
    at             timestamptz not null,                -- time of the newest event, according to Stripe
    received_at    timestamptz not null,                -- when the first event arrived
    constraint payment_reversals_link check ((cart_id is null) = (link is null))
);
create index payment_reversals_payment_intent on payment_reversals (payment_intent);
-- For those whose payment link becomes known later.
create index payment_reversals_unmatched on payment_reversals (received_at) where cart_id is null;
create index payment_reversals_open on payment_reversals (at) where state = 'open';

-- Number of webhooks that failed verification, by UTC day. Each api adds to it every few seconds at
-- most, because anybody may send them.
create table refused_webhooks (
    day     date primary key,
    count   bigint      not null check (count > 0),
    last_at timestamptz not null
) with (fillfactor = 50);
