do $$ declare n int; begin
 loop
  with p as (select id from plain_carts where status='abandoned' and abandoned_at < now() - interval '30 days' order by abandoned_at limit 5000 for update skip locked)
  update plain_carts d set status='expired', expired_at=now(), updated_at=now() from p where d.id=p.id;
  get diagnostics n = row_count; commit; exit when n = 0;
 end loop; end $$;
