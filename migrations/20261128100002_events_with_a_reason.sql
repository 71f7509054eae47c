-- no-transaction
-- What the dashboard and `worker doctor` count.
create index concurrently if not exists stripe_events_with_a_reason
    on stripe_events (received_at) where reason is not null;
