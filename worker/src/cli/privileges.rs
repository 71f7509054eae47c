//! `worker doctor`: privileges of the database role.

use common::db::Database;

use super::check::Check;

/// Whether the role may read and write every table: one that another role made
/// may be closed to it, which shows only where it is needed.
pub(super) async fn examine(database: &Database) -> sqlx::Result<Check> {
    let (role, may_migrate, closed): (String, bool, Option<String>) = sqlx::query_as(
        "select current_user::text, coalesce(has_schema_privilege(current_schema(), 'create'), false),
                (select string_agg(relname, ', ' order by relname) from pg_class
                 where relnamespace = to_regnamespace(current_schema()) and relkind in ('r', 'p')
                   and relname <> '_sqlx_migrations'
                   and not (has_table_privilege(oid, 'select') and has_table_privilege(oid, 'insert')
                            and has_table_privilege(oid, 'update') and has_table_privilege(oid, 'delete')))",
    )
    .fetch_one(&mut database.acquire().await?)
    .await?;
    Ok(match (closed, may_migrate) {
        (Some(closed), _) => Check::fail(
            "privileges",
            format!("{role} may not read and write all of: {closed}; run examples/roles.sql once more"),
        ),
        (None, true) => Check::ok("privileges", format!("{role} may read and write, and change the schema")),
        (None, false) => Check::ok("privileges", format!("{role} may read and write, and not change the schema")),
    })
}
