-- The database that P11 backs up: users, projects and events of a team's tool, about :megabytes MB of SQL.
-- The same rows every time: one session, one seed, and no clock.
SET max_parallel_workers_per_gather = 0;
SET synchronous_commit = off;
SELECT setseed(0.42);

-- A dump of so many megabytes has so many of them.
SELECT :megabytes * 20 AS users, :megabytes * 8 AS projects, :megabytes * 2060 AS events \gset

-- Three thousand words of two to four syllables. The first are used most, as in any language. Below they are an array of names, which are all
-- of one length: the next word is found without going through those before it.
CREATE TEMP TABLE vocabulary AS
SELECT number, string_agg(syllables[1 + floor(random() * 40)::int], '') AS word
FROM (SELECT '{an,be,co,de,el,fi,ga,he,in,jo,ka,li,me,no,or,pa,qui,re,so,ta,un,vi,wa,xe,yo,zu,bra,cle,dri,fro,gly,men,ning,per,sta,ter,tion,ver,ing,ed}'::text[] AS syllables) AS known,
     generate_series(1, 3000) AS number,
     LATERAL generate_series(1, 2 + number % 3) AS place
GROUP BY number;

CREATE TABLE users (
    id bigint PRIMARY KEY,
    email text NOT NULL UNIQUE,
    name text NOT NULL,
    password_hash text NOT NULL,
    settings jsonb NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE TABLE projects (
    id bigint PRIMARY KEY,
    owner_id bigint NOT NULL REFERENCES users,
    key text NOT NULL,
    name text NOT NULL,
    description text NOT NULL,
    tags text[] NOT NULL,
    archived boolean NOT NULL
);
CREATE TABLE events (
    id bigint NOT NULL,
    project_id bigint NOT NULL,
    user_id bigint NOT NULL,
    kind text NOT NULL,
    at timestamptz NOT NULL,
    payload jsonb NOT NULL,
    message text NOT NULL
);

INSERT INTO users
WITH vocabulary AS MATERIALIZED (SELECT array_agg(word::name ORDER BY number) AS words FROM vocabulary)
SELECT number,
       format('%s.%s@example.com', words[1 + floor(random() * 3000)::int], number),
       initcap(words[1 + floor(random() * 3000)::int] || ' ' || words[1 + floor(random() * 3000)::int]),
       format('$argon2id$v=19$m=65536,t=3,p=4$%s$%s', md5(random()::text), md5(random()::text)),
       jsonb_build_object('theme', CASE WHEN random() < 0.7 THEN 'light' ELSE 'dark' END,
                          'language', (ARRAY['ja', 'en', 'de', 'fr'])[1 + floor(random() * 4)::int],
                          'notifications', jsonb_build_object('mail', random() < 0.5, 'digest-hour', floor(random() * 24)::int)),
       timestamptz '2022-01-01 00:00:00Z' + random() * interval '4 years'
FROM vocabulary, generate_series(1, :users) AS number;

INSERT INTO projects
WITH vocabulary AS MATERIALIZED (SELECT array_agg(word::name ORDER BY number) AS words FROM vocabulary)
SELECT number,
       1 + floor(random() * :users)::bigint,
       upper(left(words[1 + floor(random() * 3000)::int], 4)) || number,
       initcap(words[1 + floor(random() * 3000)::int]),
       array_to_string(ARRAY(SELECT words[floor(exp(random() * ln(3000)))::int] FROM generate_series(1, 30 + number % 50)), ' '),
       ARRAY[words[1 + floor(random() * 100)::int], words[1 + floor(random() * 100)::int]],
       random() < 0.2
FROM vocabulary, generate_series(1, :projects) AS number;

INSERT INTO events
WITH vocabulary AS MATERIALIZED (SELECT array_agg(word::name ORDER BY number) AS words FROM vocabulary)
SELECT number,
       1 + floor(random() * :projects)::bigint,
       1 + floor(random() * :users)::bigint,
       (ARRAY['issue.created', 'issue.updated', 'issue.commented', 'sync.finished', 'wiki.edited', 'login'])[1 + floor(random() * 6)::int],
       timestamptz '2024-01-01 00:00:00Z' + number * interval '31 seconds' + random() * interval '30 seconds',
       jsonb_build_object(
           'request', md5(random()::text)::uuid,
           'address', format('10.%s.%s.%s', floor(random() * 8)::int, floor(random() * 256)::int, floor(random() * 256)::int),
           'agent', (ARRAY['Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0',
                           'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36',
                           'team-insight-sync/1.4.0'])[1 + floor(random() * 3)::int],
           'path', format('/api/v1/projects/%s/issues/%s', floor(random() * :projects)::int, floor(random() * 100000)::int),
           'status', (ARRAY[200, 200, 200, 201, 304, 404, 500])[1 + floor(random() * 7)::int],
           'milliseconds', round((-80 * ln(1 - random()))::numeric, 2)),
       array_to_string(ARRAY(SELECT words[floor(exp(random() * ln(3000)))::int] FROM generate_series(1, 8 + number % 30)), ' ')
FROM vocabulary, generate_series(1, :events) AS number;

ALTER TABLE events ADD PRIMARY KEY (id);
CREATE INDEX events_by_project ON events (project_id, at);
VACUUM ANALYZE;
CHECKPOINT;
