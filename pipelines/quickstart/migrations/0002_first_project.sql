-- windlass: phase=expand
insert into projects (name) values ('team-insight');
