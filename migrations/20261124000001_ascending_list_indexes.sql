-- The list's indexes, ascending. New carts then go to their right end, where
-- Postgres has a short way in and leaves pages full; at the left end of a
-- descending index every new cart splits a page in half. A list newest first
-- reads them backwards, which costs the same.
drop index carts_by_creation;
drop index carts_by_status;
create index carts_by_creation on carts (created_at, id);
create index carts_by_status on carts (status, created_at, id);
