-- An entry that does not use these leaves them out.
ALTER TABLE entry
  ALTER COLUMN agent_id TYPE TEXT COLLATE "C", ALTER COLUMN user_id TYPE TEXT COLLATE "C", ALTER COLUMN tier TYPE TEXT COLLATE "C",
  ALTER COLUMN cached_input SET DEFAULT 0, ALTER COLUMN cache_write SET DEFAULT 0,
  ALTER COLUMN audio_input SET DEFAULT 0, ALTER COLUMN image_input SET DEFAULT 0,
  ALTER COLUMN reasoning SET DEFAULT 0, ALTER COLUMN audio_output SET DEFAULT 0, ALTER COLUMN image_output SET DEFAULT 0,
  ALTER COLUMN accepted_prediction SET DEFAULT 0, ALTER COLUMN rejected_prediction SET DEFAULT 0,
  ALTER COLUMN total SET DEFAULT 0;
