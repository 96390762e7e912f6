//! `windlass:sql/database`: connections to SQLite and PostgreSQL, reads and transactions as JSON text.
