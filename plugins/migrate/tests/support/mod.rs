//! A real SQLite behind the port, with faults to order.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use windlass_guest::Error;
use windlass_guest::sql::{Options, Rows, Step};
use windlass_plugin_migrate::stage::{Database, Host};

/// A project: a database file and a directory of migrations.
pub(crate) struct Project {
    place: tempfile::TempDir,
    pub(crate) faults: Faults,
    pub(crate) log: Vec<String>,
    pub(crate) labels: Rc<RefCell<Vec<String>>>,
}

#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) locked: bool,
    /// Cancelled once so many migrations were applied.
    pub(crate) cancelled_after: Option<usize>,
    pub(crate) unreachable: bool,
}

impl Project {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("migrations")).unwrap();
        let project = Self {
            place,
            faults: Faults::default(),
            log: Vec::new(),
            labels: Rc::default(),
        };
        files.iter().for_each(|(name, text)| project.write(name, text));
        project
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory().join(name), text).unwrap();
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.place.path().join("migrations")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.place.path().join("app.db")
    }

    /// The first column of a query, as texts.
    pub(crate) fn query(&self, statement: &str) -> Vec<String> {
        let connection = rusqlite::Connection::open(self.database()).unwrap();
        let mut prepared = connection.prepare(statement).unwrap();
        let rows = prepared.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }
}

impl Host for Project {
    fn open(&mut self, url: &str, options: &Options) -> Result<Box<dyn Database>, Error> {
        if self.faults.unreachable {
            return Err(Error::new("sql.unreachable", "the server does not answer").retryable());
        }
        let path = Path::new(url);
        if !options.create && !path.exists() {
            return Err(Error::new("sql.missing", "there is no such database"));
        }
        let connection = RefCell::new(rusqlite::Connection::open(path).unwrap());
        let labels = Rc::clone(&self.labels);
        Ok(Box::new(Sqlite {
            connection,
            labels,
            read_only: options.read_only,
            locked: self.faults.locked,
        }))
    }

    fn run_id(&mut self) -> String {
        "run1".to_owned()
    }

    fn info(&mut self, message: &str) {
        self.log.push(message.to_owned());
    }

    fn progress(&mut self, done: u64, total: u64) {
        assert!(done <= total);
    }

    fn is_cancelled(&mut self) -> bool {
        self.faults
            .cancelled_after
            .is_some_and(|after| self.log.len() >= after)
    }
}

struct Sqlite {
    connection: RefCell<rusqlite::Connection>,
    labels: Rc<RefCell<Vec<String>>>,
    read_only: bool,
    locked: bool,
}

impl Database for Sqlite {
    fn dialect(&self) -> String {
        "sqlite".to_owned()
    }

    fn lock(&self, key: &str, _timeout: Duration) -> Result<bool, Error> {
        assert!(!self.read_only, "a plan takes no lock");
        assert_eq!(key, "windlass-migrate:windlass_migrations");
        Ok(!self.locked)
    }

    fn query(&self, statement: &str, parameters: &[Value]) -> Result<Rows, Error> {
        let connection = self.connection.borrow();
        let mut prepared = connection.prepare(statement).map_err(|error| failed(0, &error))?;
        let columns: Vec<String> = prepared.column_names().map(str::to_owned).collect();
        let mut rows = prepared
            .query(rusqlite::params_from_iter(texts(parameters)))
            .unwrap();
        let mut answer = Rows {
            columns,
            rows: Vec::new(),
        };
        while let Some(row) = rows.next().unwrap() {
            let value = |column| match row.get_ref(column).unwrap() {
                rusqlite::types::ValueRef::Integer(number) => json!(number),
                other => json!(other.as_str().unwrap()),
            };
            answer.rows.push((0..answer.columns.len()).map(value).collect());
        }
        Ok(answer)
    }

    fn transact(&self, label: &str, steps: &[Step]) -> Result<(), Error> {
        assert!(!self.read_only, "a plan writes nothing");
        let mut connection = self.connection.borrow_mut();
        let transaction = connection.transaction().unwrap();
        for (number, step) in steps.iter().enumerate() {
            let done = if step.parameters.is_empty() {
                transaction.execute_batch(&step.sql)
            } else {
                transaction
                    .execute(&step.sql, rusqlite::params_from_iter(texts(&step.parameters)))
                    .map(drop)
            };
            done.map_err(|error| failed(number, &error))?;
        }
        transaction.commit().unwrap();
        self.labels.borrow_mut().push(label.to_owned());
        Ok(())
    }
}

fn texts(parameters: &[Value]) -> Vec<String> {
    parameters
        .iter()
        .map(|value| value.as_str().unwrap().to_owned())
        .collect()
}

fn failed(step: usize, error: &rusqlite::Error) -> Error {
    Error::new("sql.failed", error.to_string()).with_details(json!({ "step": step }))
}
