-- A client's own id of a cart that it imported: what makes an import safe to
-- repeat. Adding it rewrites nothing; carts without one cost no index anything.
-- "C": ids are compared byte by byte, as the importer sorts them.
alter table carts add column external_id text collate "C";

-- Not valid: the rows of before have none, so nothing needs to be looked at.
alter table carts add constraint carts_external_id_length
    check (char_length(external_id) between 1 and 200) not valid;

-- The invariant: whoever imports a cart first makes it, everybody else finds it.
create unique index carts_external_id on carts (external_id) where external_id is not null;
