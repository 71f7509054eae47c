-- Finding carts by a part of the shopper's name or address or of the shop's id, by date, value, currency, recovery and
-- failed links, in the order of a date or of the value.
--
-- An index on carts would cost each cart that is stored and each that expires. Storing a cart writes only its id
-- here, and so do a recovery and a link that fails. A job fills the table (common/src/carts/search/index.rs), and lists read the carts that are not in it yet
-- one by one, so that they see every change at once.

-- A total as the number that people read, in thousandths of its unit, so that totals of all currencies compare. The
-- currencies are those of common/src/money/currency.rs.
create function cart_value(minor bigint, currency text) returns bigint language sql immutable parallel safe as $$
    select least(minor, 9223372036854775) * case
        when currency in ('bif', 'clp', 'djf', 'gnf', 'isk', 'jpy', 'kmf', 'krw', 'mga', 'pyg', 'rwf', 'ugx', 'vnd', 'vuv',
                          'xaf', 'xof', 'xpf') then 1000
        when currency in ('bhd', 'iqd', 'jod', 'kwd', 'lyd', 'omr', 'tnd') then 1
        else 10 end
$$;

create table cart_search (
    cart_id      text collate "C" primary key,
    text         text        not null,                  -- name, address and the shop's id, folded: without case and accents
    grams        integer[]   not null,                  -- of each two consecutive characters of text, and of currency, recovered and link_failed
    currency     text        not null,                  -- as in carts
    recovered    boolean     not null,                  -- the status in carts is 'recovered'
    link_failed  boolean     not null,                  -- the newest payment link is 'failed', 'payment_failed' or 'settling'
    value        bigint      not null,                  -- cart_value() of the total
    created_at   timestamptz not null,                  -- as in carts
    abandoned_at timestamptz not null                   -- as in carts
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
create index cart_search_grams on cart_search using gin (grams);
-- With all columns but text and grams, so that a list in this order is filtered in the index. Rows of neighbouring values
-- are scattered over the table.
create index cart_search_value on cart_search (value, cart_id) include (currency, recovered, link_failed, created_at, abandoned_at);
create index cart_search_created on cart_search (created_at, cart_id);
create index cart_search_abandoned on cart_search (abandoned_at, cart_id);

-- Carts whose row in cart_search is missing or old.
create table cart_search_changes (
    cart_ids text[] not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

create function carts_search_inserted() returns trigger language plpgsql as $$
begin
    insert into cart_search_changes (cart_ids)
    select array_agg(id) from (select id, (row_number() over () - 1) / 100 as part from added) carts group by part;
    return null;
end $$;
create trigger carts_search_inserted after insert on carts referencing new table as added
    for each statement execute function carts_search_inserted();

-- The old text goes at once, because it is personal data. If the job is writing it at that moment, the job's next run
-- deletes it. (For each row, because only such a trigger can be for some columns.)
create function carts_search_updated() returns trigger language plpgsql as $$
begin
    delete from cart_search where cart_id = old.id;
    insert into cart_search_changes (cart_ids) values (array[old.id, new.id]);
    return null;
end $$;
create trigger carts_search_updated
    after update of id, customer_name, customer_email, external_id, total_minor, currency, created_at, abandoned_at on carts for each row
    when ((old.id, old.customer_name, old.customer_email, old.external_id, old.total_minor, old.currency, old.created_at, old.abandoned_at)
        is distinct from
        (new.id, new.customer_name, new.customer_email, new.external_id, new.total_minor, new.currency, new.created_at, new.abandoned_at))
    execute function carts_search_updated();

-- Other changes of the status are not recorded, so that a cart that expires fires no function.
create function carts_search_recovered() returns trigger language plpgsql as $$
begin
    insert into cart_search_changes (cart_ids) values (array[new.id]);
    return null;
end $$;
create trigger carts_search_recovered after update of status on carts for each row
    when ((old.status = 'recovered') <> (new.status = 'recovered')) execute function carts_search_recovered();

create function payment_links_search_changed() returns trigger language plpgsql as $$
begin
    insert into cart_search_changes (cart_ids) select array[id] from carts where id in (old.cart_id, new.cart_id);
    return null;
end $$;
-- A link after the first may replace one that failed.
create trigger payment_links_search_inserted after insert on payment_links for each row
    when (new.version > 1 or new.status in ('failed', 'payment_failed', 'settling'))
    execute function payment_links_search_changed();
create trigger payment_links_search_updated after update of status, cart_id, version on payment_links for each row
    when ((old.status in ('failed', 'payment_failed', 'settling')) <> (new.status in ('failed', 'payment_failed', 'settling'))
        or (old.cart_id, old.version) is distinct from (new.cart_id, new.version))
    execute function payment_links_search_changed();
create trigger payment_links_search_deleted after delete on payment_links for each row
    execute function payment_links_search_changed();

-- The job locks the carts that it indexes, so that a deleted cart has no row that is not seen here.
create function carts_search_deleted() returns trigger language plpgsql as $$
begin
    delete from cart_search where cart_id in (select id from removed);
    return null;
end $$;
create trigger carts_search_deleted after delete on carts referencing old table as removed
    for each statement execute function carts_search_deleted();

create function carts_search_truncated() returns trigger language plpgsql as $$
begin
    delete from cart_search;
    delete from cart_search_changes;
    return null;
end $$;
create trigger carts_search_truncated after truncate on carts
    for each statement execute function carts_search_truncated();
