\set i random(1, 1000000)
update cart_update set status = 'recovered', updated_at = now() where id = 'cart_'||md5((:i)::int::text);
