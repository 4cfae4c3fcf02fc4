-- Keys in custody move from next to current to retiring.

ALTER TABLE keys ADD COLUMN retired_at timestamptz;               -- since when the key is retiring
CREATE UNIQUE INDEX keys_one_next ON keys (purpose) WHERE state = 'next';
