-- The list's indexes, ascending. New carts then go to their right end, where
-- Postgres has a short way in and leaves pages full; at the left end of a
-- descending index every new cart splits a page in half. A list newest first
-- reads them backwards, which costs the same.
--
-- One for each status instead of one with the status first: a cart is in one of
-- them as it was in that one, the entries are smaller, and a list of a status
-- has one index that fits it best whatever the statistics say.
--
-- Who reads carts is not kept waiting by this; the old indexes go last, in
-- 20261124000900_drop_descending_list_indexes.sql.
create index carts_by_creation_ascending on carts (created_at, id);
create index carts_abandoned_by_creation on carts (created_at, id) where status = 'abandoned';
create index carts_recovered_by_creation on carts (created_at, id) where status = 'recovered';
create index carts_expired_by_creation on carts (created_at, id) where status = 'expired';
