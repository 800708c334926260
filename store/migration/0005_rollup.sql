-- What the entries of a day came to, by whose they were and what was used: see
-- store/rollup.go. A day is a number of days since 1970, in UTC.
CREATE TABLE rollup (
  company_id   TEXT   NOT NULL,
  day          BIGINT NOT NULL,
  project_id   TEXT   NOT NULL,
  key_id       TEXT   NOT NULL,
  user_id      TEXT   NOT NULL,
  agent_id     TEXT   NOT NULL,
  kind         TEXT   NOT NULL,
  provider     TEXT   NOT NULL,
  model        TEXT   NOT NULL,
  tier         TEXT   NOT NULL,
  lent         BIGINT NOT NULL,
  requests     BIGINT NOT NULL, -- first attempts
  attempts     BIGINT NOT NULL,
  unpriced     BIGINT NOT NULL, -- attempts
  cost_nano    BIGINT NOT NULL,
  input        BIGINT NOT NULL,
  cached_input BIGINT NOT NULL,
  cache_write  BIGINT NOT NULL,
  audio_input  BIGINT NOT NULL,
  image_input  BIGINT NOT NULL,
  output       BIGINT NOT NULL,
  reasoning    BIGINT NOT NULL,
  audio_output BIGINT NOT NULL,
  image_output BIGINT NOT NULL,
  PRIMARY KEY (company_id, day, project_id, key_id, user_id, agent_id, kind, provider, model, tier, lent)
);

-- How far the day is: rollup has taken in all of it if rolled = late.
CREATE TABLE rollup_day (
  company_id TEXT   NOT NULL,
  day        BIGINT NOT NULL,
  late       BIGINT NOT NULL, -- counts what was appended after the day was over
  rolled     BIGINT NOT NULL, -- what late was for rollup; -1: never
  closed     BIGINT NOT NULL, -- 1: entries go as they are taken in; those there are come on top of rollup
  built      TEXT   NOT NULL, -- the entry up to which it is being taken in
  PRIMARY KEY (company_id, day)
);

-- Each day before this one that has entries has a row in rollup_day.
ALTER TABLE company ADD COLUMN rolled_until BIGINT NOT NULL DEFAULT 0;

-- See tenant.SpendAlert and tenant.SpendEvent.
CREATE TABLE alert (
  company_id TEXT   NOT NULL REFERENCES company (company_id),
  id         TEXT   NOT NULL,
  project_id TEXT   NOT NULL,
  amount     BIGINT NOT NULL,
  url        TEXT   NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (company_id, id)
);
CREATE INDEX alert_created ON alert (company_id, created_at, id);

CREATE TABLE alert_event (
  company_id   TEXT   NOT NULL,
  id           TEXT   NOT NULL,
  alert_id     TEXT   NOT NULL,
  amount       BIGINT NOT NULL,
  period       BIGINT NOT NULL,
  spent        BIGINT NOT NULL,
  created_at   BIGINT NOT NULL,
  tries        BIGINT NOT NULL,
  next_at      BIGINT NOT NULL,
  delivered_at BIGINT NOT NULL,
  status       BIGINT NOT NULL,
  PRIMARY KEY (company_id, id),
  UNIQUE (company_id, alert_id, period, amount),
  FOREIGN KEY (company_id, alert_id) REFERENCES alert (company_id, id)
);

-- No company's content: which company has something to be done, and when.
CREATE TABLE upkeep (
  company_id TEXT   NOT NULL,
  kind       TEXT   NOT NULL,
  at         BIGINT NOT NULL, -- when it is given out, (again) if somebody has it
  asked      BIGINT NOT NULL, -- for when it was asked for since it was given out
  PRIMARY KEY (company_id, kind)
);
CREATE INDEX upkeep_at ON upkeep (kind, at);
