-- What 20261124000001_ascending_list_indexes.sql replaces. The last of its
-- release, because it locks readers out until all of them are committed.
drop index carts_by_creation;
drop index carts_by_status;
alter index carts_by_creation_ascending rename to carts_by_creation;
