-- Taking a person out of the database, and what is left to show for it.

-- Receipts of POST /api/erasure: how much was taken out, and when. Not whose it
-- was: an address, or a hash of it, which tells whoever guesses the address that
-- he is right, would be what the erasure was to end.
create table erasures (
    id        text primary key,                         -- erasure_ and a UUIDv7 in base 32
    erased_at timestamptz not null,
    removed   json        not null                      -- how many of each kind, by the names of exports
);

-- As it was (20261124001000_cart_events.sql), but that it looks twice at the cart: one that
-- is deleted in this very moment would be told of after its end, for good. `skip locked`
-- waits for nobody: whoever deletes has locked the cart so that this does not meet it, or
-- will wait until this has committed, and then take its event along.
create or replace function jobs_tell_link_not_made() returns trigger language plpgsql as $$
begin
    if new.kind <> 'create_payment_link' or old.state = 'dead' then
        return null;
    end if;
    perform from carts where id = new.payload->>'cartId' for key share skip locked;
    if not found then
        return null;
    end if;
    insert into cart_events (cart_id, at, kind, link, why, details)
    select asked.cart_id, date_trunc('milliseconds', greatest(new.finished_at, asked.updated_at)), 'link_not_made', asked.version,
           case when new.attempts >= new.max_attempts then 'attempts_exhausted' else 'job_cancelled' end,
           jsonb_build_object('attempts', new.attempts)
    from payment_links asked
    where asked.cart_id = new.payload->>'cartId' and asked.job_id = new.id and asked.status = 'pending'
    on conflict do nothing;
    return null;
end $$;
