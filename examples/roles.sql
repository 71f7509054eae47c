-- Two roles, so that the processes can read and write rows and nothing else.
--
--   psql "$ADMIN_URL" -f examples/roles.sql        in the product's own database, as whoever administers it
--   \password checkout_owner
--   \password checkout
--   DATABASE_URL=postgres://checkout_owner:…  worker migrate
--   psql "$ADMIN_URL" -f examples/roles.sql        once more, now that there are tables; any number of times
--
-- and api and worker with DATABASE_URL=postgres://checkout:…
-- Before an upgrade `worker migrate` of the new release runs first. tests/tests/database_roles.rs runs this file.

do $$
begin
    if not exists (select from pg_roles where rolname = 'checkout_owner') then
        create role checkout_owner login;
    end if;
    if not exists (select from pg_roles where rolname = 'checkout') then
        create role checkout login;
    end if;
end $$;

-- What is set for another role is set by one of its members (or a superuser).
grant checkout_owner to current_user;

-- Nobody else makes tables here. (Everybody could, before Postgres 15.)
revoke create on schema public from public;
grant usage, create on schema public to checkout_owner;
grant usage on schema public to checkout;
do $$
begin
    execute format('revoke temporary on database %I from public', current_database());
    execute format('grant connect on database %I to checkout_owner, checkout', current_database());
end $$;

-- What migrations will make …
alter default privileges for role checkout_owner in schema public
    grant select, insert, update, delete on tables to checkout;
alter default privileges for role checkout_owner in schema public
    grant usage, select on sequences to checkout;
alter default privileges for role checkout_owner in schema public
    grant execute on functions to checkout;

-- … and what they have made.
grant select, insert, update, delete on all tables in schema public to checkout;
grant usage, select on all sequences in schema public to checkout;
grant execute on all functions in schema public to checkout;

-- Which migrations were applied is for their owner alone to say.
do $$
begin
    if to_regclass('public._sqlx_migrations') is not null then
        revoke insert, update, delete on public._sqlx_migrations from checkout;
    end if;
end $$;
