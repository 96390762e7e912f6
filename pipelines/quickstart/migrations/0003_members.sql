-- windlass: phase=expand
create table members (
  project integer not null references projects (id),
  name text not null,
  primary key (project, name)
);
insert into members (project, name) select id, 'founder' from projects;
