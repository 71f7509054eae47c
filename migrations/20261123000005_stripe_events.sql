-- Stripe's events, each once. Ids only: the body has the shopper's address in it.
create table stripe_events (
    id          text primary key,                       -- evt_…: a repeat is a conflict here
    kind        text        not null,
    object_id   text,                                   -- cs_… or pi_…
    cart_id     text,
    created_at  timestamptz not null,                   -- when it happened, says Stripe
    received_at timestamptz not null,
    effect      text        not null                    -- what it did here
);
create index stripe_events_received on stripe_events (received_at);
