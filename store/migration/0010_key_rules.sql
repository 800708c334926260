-- A key may be rotated: its id, limits, budgets and history stay, and until
-- old_until the value before is taken too. rules are what narrows it.
ALTER TABLE api_key ADD COLUMN old_hash BYTEA CHECK (old_hash IS NULL OR length(old_hash) = 32);
ALTER TABLE api_key ADD COLUMN old_until BIGINT NOT NULL DEFAULT 0;
ALTER TABLE api_key ADD COLUMN last_used_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE api_key ADD COLUMN rules TEXT NOT NULL DEFAULT '{}';
