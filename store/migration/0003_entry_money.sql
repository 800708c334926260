-- What an entry says since budgets: whose call it was besides the key's, at which
-- tier it was billed, and between what the bill is while it is an estimate.
ALTER TABLE entry ADD COLUMN agent_id   TEXT    NOT NULL DEFAULT '';
ALTER TABLE entry ADD COLUMN user_id    TEXT    NOT NULL DEFAULT '';
ALTER TABLE entry ADD COLUMN tier       TEXT    NOT NULL DEFAULT '';
ALTER TABLE entry ADD COLUMN again      BIGINT  NOT NULL DEFAULT 0; -- 1: not the first attempt of its request
ALTER TABLE entry ADD COLUMN lent       BIGINT  NOT NULL DEFAULT 0; -- 1: with a credential of the operator's
ALTER TABLE entry ADD COLUMN marks      BIGINT  NOT NULL DEFAULT 0;
ALTER TABLE entry ADD COLUMN cache_write_1h BIGINT NOT NULL DEFAULT 0;
ALTER TABLE entry ADD COLUMN searches       BIGINT NOT NULL DEFAULT 0;
ALTER TABLE entry ADD COLUMN search_context BIGINT NOT NULL DEFAULT 0;
ALTER TABLE entry ADD COLUMN tools          BIGINT NOT NULL DEFAULT 0;
ALTER TABLE entry ADD COLUMN seconds        BIGINT NOT NULL DEFAULT 0;
ALTER TABLE entry ADD COLUMN images         BIGINT NOT NULL DEFAULT 0;
ALTER TABLE entry ADD COLUMN characters     BIGINT NOT NULL DEFAULT 0;
ALTER TABLE entry ADD COLUMN under_nano BIGINT  NOT NULL DEFAULT 0; -- the bill is at least cost_nano - under_nano
ALTER TABLE entry ADD COLUMN over_nano  BIGINT  NOT NULL DEFAULT 0; -- and at most cost_nano + over_nano
