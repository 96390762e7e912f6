//! The migrations table: the statements that make, read and extend it, for both dialects.
//!
//! They differ in types and placeholders only.

use serde_json::{Value, json};
use windlass_guest::Error;
use windlass_guest::sql::{Rows, Step};

use crate::pending::Applied;
use crate::script::{Migration, Version};

/// The table of one database.
pub(crate) struct Table {
    name: String,
    dialect: Dialect,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Sqlite,
    Postgresql,
}

impl Table {
    /// `name` has passed [`crate::config::Config::check`]; `dialect` is what the host calls it.
    ///
    /// # Errors
    /// `migrate.dialect`.
    pub(crate) fn new(name: &str, dialect: &str) -> Result<Self, Error> {
        let dialect = match dialect {
            "sqlite" => Dialect::Sqlite,
            "postgresql" => Dialect::Postgresql,
            other => {
                return Err(Error::new(
                    "migrate.dialect",
                    format!("cannot migrate a database of the kind `{other}`"),
                )
                .help("this plugin knows SQLite and PostgreSQL"));
            }
        };
        Ok(Self {
            name: name.to_owned(),
            dialect,
        })
    }

    /// The advisory lock that keeps two runs from migrating at once.
    pub(crate) fn lock_key(&self) -> String {
        format!("windlass-migrate:{}", self.name)
    }

    /// A statement with one row when the table is there.
    pub(crate) fn exists(&self) -> (&'static str, Vec<Value>) {
        match self.dialect {
            Dialect::Sqlite => {
                let name = self.name.rsplit('.').next().unwrap_or(&self.name);
                (
                    "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?",
                    vec![json!(name)],
                )
            }
            Dialect::Postgresql => (
                "SELECT 1 WHERE to_regclass($1) IS NOT NULL",
                vec![json!(self.quoted())],
            ),
        }
    }

    pub(crate) fn create(&self) -> Step {
        let applied_at = match self.dialect {
            Dialect::Sqlite => "TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP",
            Dialect::Postgresql => "TIMESTAMPTZ NOT NULL DEFAULT now()",
        };
        Step::new(format!(
            "CREATE TABLE IF NOT EXISTS {} (version TEXT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, \
             phase TEXT NOT NULL, applied_at {applied_at}, run TEXT NOT NULL)",
            self.quoted()
        ))
    }

    pub(crate) fn select(&self) -> String {
        format!("SELECT version, name, checksum, run FROM {}", self.quoted())
    }

    /// Records a migration; the time is the database's.
    pub(crate) fn insert(&self, migration: &Migration, run: &str) -> Step {
        let marks = match self.dialect {
            Dialect::Sqlite => "?, ?, ?, ?, ?",
            Dialect::Postgresql => "$1, $2, $3, $4, $5",
        };
        let statement = format!(
            "INSERT INTO {} (version, name, checksum, phase, run) VALUES ({marks})",
            self.quoted()
        );
        let values = [
            migration.version.as_str(),
            &migration.name,
            &migration.checksum,
            migration.phase.as_str(),
            run,
        ];
        Step::with(statement, values.into_iter().map(Value::from).collect())
    }

    /// The rows that [`Table::select`] gave, by version.
    ///
    /// # Errors
    /// `migrate.table` for rows this plugin did not write.
    pub(crate) fn read(&self, rows: &Rows) -> Result<Vec<Applied>, Error> {
        let mut applied = rows
            .rows
            .iter()
            .map(|row| self.row(row))
            .collect::<Result<Vec<_>, _>>()?;
        applied.sort_by(|a, b| a.version.cmp(&b.version));
        Ok(applied)
    }

    fn row(&self, row: &[Value]) -> Result<Applied, Error> {
        let text = |column: usize| row.get(column).and_then(Value::as_str);
        let read = || {
            let version = Version::parse(text(0)?)?;
            Some(Applied {
                version,
                name: text(1)?.to_owned(),
                checksum: text(2)?.to_owned(),
                run: text(3)?.to_owned(),
            })
        };
        read().ok_or_else(|| {
            Error::new(
                "migrate.table",
                format!("the table {} holds a row that is not a migration's", self.name),
            )
            .with_details(json!({ "row": row }))
            .help("another tool seems to use this table: choose another name with `table`")
        })
    }

    fn quoted(&self) -> String {
        self.name
            .split('.')
            .map(|part| format!("\"{part}\""))
            .collect::<Vec<_>>()
            .join(".")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dialect: &str, name: &str, insert: &str, type_of_time: &str) {
        let table = Table::new(name, dialect).unwrap();
        let migration = Migration::read("0001_a.sql", b"select 1").unwrap().unwrap();
        let step = table.insert(&migration, "run1");
        assert_eq!(step.sql, insert);
        assert_eq!(
            step.parameters,
            ["0001", "a", &migration.checksum, "expand", "run1"].map(Value::from)
        );
        assert!(table.create().sql.contains(type_of_time));
    }

    #[test]
    fn dialects_differ_in_placeholders_and_types() {
        let columns = "(version, name, checksum, phase, run)";
        let sqlite = format!("INSERT INTO \"m\" {columns} VALUES (?, ?, ?, ?, ?)");
        check("sqlite", "m", &sqlite, "applied_at TEXT");
        let postgresql = format!("INSERT INTO \"audit\".\"m\" {columns} VALUES ($1, $2, $3, $4, $5)");
        check("postgresql", "audit.m", &postgresql, "applied_at TIMESTAMPTZ");
        assert_eq!(Table::new("m", "mysql").err().unwrap().code, "migrate.dialect");
    }

    #[test]
    fn strange_rows_are_an_error() {
        let table = Table::new("m", "sqlite").unwrap();
        for row in [
            vec![],
            vec![json!(1), json!("a"), json!("b")],
            vec![json!("x"), json!("a"), json!("b"), json!("c")],
            vec![json!("0001"), json!("a"), json!("b")],
        ] {
            let rows = Rows {
                columns: Vec::new(),
                rows: vec![row],
            };
            assert_eq!(table.read(&rows).unwrap_err().code, "migrate.table");
        }
    }
}
