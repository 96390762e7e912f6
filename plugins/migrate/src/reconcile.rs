//! After a crash: did a transaction of this stage happen? The migrations table is asked, which was written in that very
//! transaction. Writes nothing.

use windlass_guest::{Error, PastEffect, Verdict};

use crate::config::Config;
use crate::stage::{self, Host, MIGRATION_LABEL, TABLE_LABEL};
use crate::table::Table;
use windlass_guest::sql::Options;

/// `Unknown` for what is not a transaction of this stage, and while somebody else is migrating: on a server, that may be what
/// the crash has left, still at work.
///
/// # Errors
/// `sql.*`, `migrate.table`.
pub fn reconcile(config: &Config, effect: &PastEffect, host: &mut dyn Host) -> Result<Verdict, Error> {
    let label = effect.arguments.get("label").and_then(|label| label.as_str());
    let (Some(label), "sql.transact") = (label, effect.function.as_str()) else {
        return Ok(Verdict::Unknown);
    };
    let options = Options {
        create: false,
        ..stage::options(config)
    };
    let database = match host.open(&config.url, &options) {
        Ok(database) => database,
        Err(error) if error.code == "sql.missing" => return Ok(Verdict::NotDone),
        Err(error) => return Err(error),
    };
    let table = Table::new(&config.table, &database.dialect())?;
    if !database.lock(&table.lock_key(), config.lock_timeout)? {
        return Ok(Verdict::Unknown);
    }
    let known = stage::applied(database.as_ref(), &table)?;
    let run = host.run_id();
    let is_there = match label.strip_prefix(MIGRATION_LABEL) {
        // What another run has applied, this one has not.
        Some(version) => known
            .rows
            .iter()
            .any(|row| row.version.as_str() == version && row.run == run),
        None if label == TABLE_LABEL => known.table_exists,
        None => return Ok(Verdict::Unknown),
    };
    Ok(if is_there { Verdict::Done } else { Verdict::NotDone })
}
