-- A list of carts with any status reads the index of each status, from the
-- newest on, and merges the three. An index of all carts beside them had to be
-- written with every cart and every change of its status.
drop index carts_by_creation;
