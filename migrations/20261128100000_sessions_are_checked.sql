-- What the session of a payment link must be, so that an event or an answer of
-- another session, or of another amount, changes nothing.
--
-- Nullable, because the version before writes rows without them: those are held
-- against the cart's own total and currency.
alter table payment_links
    add column amount_minor    bigint,                  -- frozen with the request: the cart's total_minor
    add column currency        text,                    -- frozen with the request
    add column livemode        boolean,                 -- of the session; null: not known yet
    add column payment_intent  text,                    -- pi_… of the session; null: not known yet
    add column search_began_at timestamptz,             -- when the list of sessions was last read from its beginning for this one
    add column search_after    text;                    -- cs_…: how far it was read; null: to its end

-- Why an event that names a cart of ours changed nothing, or a payment recovered
-- no cart. Whatever has a reason is shown to the operator.
alter table stripe_events add column reason text;
