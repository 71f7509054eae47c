-- A copy for updates, which no other measurement uses.
drop table if exists cart_update;
create table cart_update (like cart_1m including all);
insert into cart_update select * from cart_1m;
vacuum analyze cart_update;
checkpoint;
