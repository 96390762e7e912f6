-- windlass: phase=expand
create table projects (
  id integer primary key,
  name text not null unique,
  created_at text not null default current_timestamp
);
