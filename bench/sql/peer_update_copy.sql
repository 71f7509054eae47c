-- A table that may be changed while nothing else is measured on it.
drop table if exists cart_update;
create table cart_update (like cart_1m including all);
insert into cart_update select * from cart_1m;
vacuum analyze cart_update;
checkpoint;
