-- Runs once, in the new and empty database that the image has just made. Tables come from the migrations.

-- Finding projects by a part of their name.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- Times are stored in UTC whatever the server's zone is.
SELECT format('ALTER DATABASE %I SET timezone TO %L', current_database(), 'UTC') \gexec

-- A transaction that was forgotten must not hold its locks, and dead rows, for ever.
SELECT format('ALTER DATABASE %I SET idle_in_transaction_session_timeout TO %L', current_database(), '5min') \gexec
