-- What ended in the queue, in the order in which it did: gateways follow it, because the engine
-- never heard of its idempotency keys. CANCELED and EXPIRED are said by what is resolved without
-- an outcome: a claim then still changes no indexed column.
CREATE INDEX submissions_ended ON submissions (resolved_at, accepted_no)
    WHERE resolved_at IS NOT NULL AND outcome IS NULL;
