-- The carts table with its indexes and checks, without its triggers, with the same rows.
drop table if exists plain_carts;
create table plain_carts (like carts including all);
insert into plain_carts select * from carts where id not like 'cart\_linked%' and id not like 'cart\_paying%' order by id;
vacuum analyze plain_carts;
checkpoint;
