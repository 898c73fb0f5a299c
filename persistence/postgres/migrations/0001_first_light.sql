-- The first schema: projections of the event log, the submissions queue, the outbox.
--
-- Prices are ticks, quantities lots, amounts atoms: integers, as in the core.
-- Codes (side, reason, states, ...) are the numbers of engine/types.py. A
-- notional or a fee sum of one order can exceed 64 bits: numeric.

-- ---------------------------------------------------------------- definitions

CREATE TABLE assets (
    asset            integer     PRIMARY KEY CHECK (asset > 0),
    symbol           text        NOT NULL CHECK (symbol <> ''),
    decimals         smallint    NOT NULL CHECK (decimals BETWEEN 0 AND 38),
    definition       jsonb       NOT NULL,
    opened_sequence  bigint      NOT NULL UNIQUE CHECK (opened_sequence > 0),
    opened_at        timestamptz NOT NULL
);

CREATE TABLE markets (
    market           integer     PRIMARY KEY CHECK (market > 0),
    symbol           text        NOT NULL CHECK (symbol <> ''),
    base_asset       integer     NOT NULL REFERENCES assets,
    quote_asset      integer     NOT NULL REFERENCES assets,
    tick_size        numeric     NOT NULL CHECK (tick_size > 0),
    lot_size         numeric     NOT NULL CHECK (lot_size > 0),
    tick_atoms       bigint      NOT NULL CHECK (tick_atoms > 0),
    lot_atoms        bigint      NOT NULL CHECK (lot_atoms > 0),
    maker_fee_ppm    integer     NOT NULL,
    taker_fee_ppm    integer     NOT NULL CHECK (taker_fee_ppm BETWEEN 0 AND 1000000),
    state            smallint    NOT NULL CHECK (state BETWEEN 0 AND 3),
    definition       jsonb       NOT NULL,
    opened_sequence  bigint      NOT NULL UNIQUE CHECK (opened_sequence > 0),
    opened_at        timestamptz NOT NULL,
    CHECK (base_asset <> quote_asset),
    CHECK (maker_fee_ppm BETWEEN -taker_fee_ppm AND 1000000)
);

CREATE TABLE accounts (
    account          integer     PRIMARY KEY CHECK (account >= 0),
    name             text        NOT NULL,
    state            smallint    NOT NULL CHECK (state BETWEEN 0 AND 1),
    definition       jsonb       NOT NULL,
    opened_sequence  bigint      NOT NULL CHECK (opened_sequence >= 0),
    opened_at        timestamptz NOT NULL
);

-- The fee account is there from the beginning, without an event.
INSERT INTO accounts VALUES (0, 'fees', 0, '{}', 0, '1970-01-01T00:00:00Z');

CREATE TABLE api_keys (
    hash             bytea       PRIMARY KEY CHECK (length(hash) = 32),
    account          integer     NOT NULL REFERENCES accounts,      -- 0: of no account
    scopes           bigint      NOT NULL CHECK (scopes > 0),
    expire_time_ns   bigint      NOT NULL CHECK (expire_time_ns >= 0),  -- 0: never
    name             text        NOT NULL,
    definition       jsonb       NOT NULL,
    added_sequence   bigint      NOT NULL UNIQUE CHECK (added_sequence > 0),
    revoked_sequence bigint      NOT NULL DEFAULT 0 CHECK (revoked_sequence >= 0)  -- 0: not revoked
);

-- --------------------------------------------------------------------- orders

CREATE TABLE orders (
    order_id         bigint      PRIMARY KEY CHECK (order_id > 0),
    created_sequence bigint      NOT NULL CHECK (created_sequence > 0),
    updated_sequence bigint      NOT NULL,
    priority         bigint      NOT NULL,                -- sequence that decides its place in the level
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    slot             bigint      NOT NULL CHECK (slot BETWEEN 0 AND 4294967295),
    price            bigint      NOT NULL CHECK (price >= 0),
    quantity         bigint      NOT NULL CHECK (quantity > 0),
    filled           bigint      NOT NULL CHECK (filled >= 0),
    leaves           bigint      NOT NULL CHECK (leaves >= 0),
    cancelled        bigint      NOT NULL CHECK (cancelled >= 0),
    account          integer     NOT NULL REFERENCES accounts,
    market           integer     NOT NULL REFERENCES markets,
    side             smallint    NOT NULL CHECK (side BETWEEN 0 AND 1),
    order_type       smallint    NOT NULL CHECK (order_type BETWEEN 0 AND 1),
    time_in_force    smallint    NOT NULL CHECK (time_in_force BETWEEN 0 AND 2),
    status           smallint    NOT NULL,                -- FIX OrdStatus: 0 new, 1 partially filled, 2 filled, 4 canceled
    reason           smallint    NOT NULL CHECK (reason BETWEEN 0 AND 255),
    post_only        boolean     NOT NULL,
    notional         numeric     NOT NULL CHECK (notional >= 0),  -- sum of price x quantity of its fills
    fee              numeric     NOT NULL,                        -- atoms of quote; a rebate is negative
    client_order_id  text,
    idempotency_key  text,
    CONSTRAINT orders_quantity_adds_up CHECK (quantity::numeric = filled::numeric + leaves + cancelled),
    CONSTRAINT orders_updated_after_created CHECK (updated_sequence >= created_sequence
        AND priority BETWEEN created_sequence AND updated_sequence),
    CONSTRAINT orders_status_fits CHECK (CASE status
        WHEN 0 THEN filled = 0 AND leaves > 0 AND cancelled = 0 AND reason = 0
        WHEN 1 THEN filled > 0 AND leaves > 0 AND cancelled = 0 AND reason = 0
        WHEN 2 THEN filled > 0 AND leaves = 0 AND cancelled = 0 AND reason = 0
        WHEN 4 THEN leaves = 0 AND cancelled > 0 AND reason > 0
        ELSE false END),
    CONSTRAINT orders_fills_have_value CHECK ((filled = 0) = (notional = 0))
) WITH (fillfactor = 85);

CREATE INDEX orders_live ON orders (account, created_sequence) WHERE status < 2;
CREATE INDEX orders_client_order_id ON orders (account, client_order_id) WHERE client_order_id IS NOT NULL;
CREATE INDEX orders_idempotency_key ON orders (account, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- What the core refused, of any command, as it was asked. Nothing here refers to
-- another table: the account or market may be one that does not exist.
CREATE TABLE rejections (
    sequence         bigint      PRIMARY KEY CHECK (sequence > 0),
    created_at       timestamptz NOT NULL,
    price            bigint      NOT NULL,
    quantity         bigint      NOT NULL,
    account          bigint      NOT NULL,
    market           bigint      NOT NULL,
    slot             bigint      NOT NULL,
    command          smallint    NOT NULL,
    side             smallint    NOT NULL,                -- 0 where the command has none
    reason           smallint    NOT NULL CHECK (reason > 0),
    order_id         bigint,                              -- NULL: none, or no id that can exist
    client_order_id  text,
    idempotency_key  text
);

CREATE INDEX rejections_client_order_id ON rejections (account, client_order_id) WHERE client_order_id IS NOT NULL;
CREATE INDEX rejections_idempotency_key ON rejections (account, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX rejections_order_id ON rejections (order_id) WHERE command = 1;

-- --------------------------------------------------------------------- trades

CREATE TABLE trades (
    sequence         bigint      NOT NULL CHECK (sequence > 0),
    number           integer     NOT NULL CHECK (number > 0),     -- of this command's trades, from 1
    created_at       timestamptz NOT NULL,
    price            bigint      NOT NULL CHECK (price > 0),
    quantity         bigint      NOT NULL CHECK (quantity > 0),
    buy_order_id     bigint      NOT NULL REFERENCES orders,
    sell_order_id    bigint      NOT NULL REFERENCES orders,
    buy_fee          bigint      NOT NULL,
    sell_fee         bigint      NOT NULL,
    buy_account      integer     NOT NULL,
    sell_account     integer     NOT NULL,
    market           integer     NOT NULL,                -- its orders' market, which exists
    taker_side       smallint    NOT NULL CHECK (taker_side BETWEEN 0 AND 1),
    trade_id         text        NOT NULL GENERATED ALWAYS AS (sequence::text || '-' || number::text) STORED,
    PRIMARY KEY (sequence, number),
    CHECK (buy_order_id <> sell_order_id)
);

CREATE INDEX trades_market ON trades (market, sequence, number);
CREATE INDEX trades_buy_order ON trades (buy_order_id, sequence, number);
CREATE INDEX trades_sell_order ON trades (sell_order_id, sequence, number);
CREATE INDEX trades_buy_account ON trades (buy_account, sequence, number);
CREATE INDEX trades_sell_account ON trades (sell_account, sequence, number);

-- Both sides of each trade, as its parties see it.
CREATE VIEW fills AS
    SELECT sequence, number, trade_id, created_at, market, buy_account AS account, buy_order_id AS order_id,
           0::smallint AS side, price, quantity, buy_fee AS fee, taker_side = 0 AS taker
      FROM trades
    UNION ALL
    SELECT sequence, number, trade_id, created_at, market, sell_account, sell_order_id,
           1::smallint, price, quantity, sell_fee, taker_side = 1
      FROM trades;

-- --------------------------------------------------------------------- ledger

CREATE TABLE balances (
    account          integer     NOT NULL REFERENCES accounts,
    asset            integer     NOT NULL REFERENCES assets,
    available        bigint      NOT NULL CHECK (available >= 0),
    held             bigint      NOT NULL CHECK (held >= 0),
    sequence         bigint      NOT NULL CHECK (sequence > 0),
    PRIMARY KEY (account, asset)
) WITH (fillfactor = 70);

CREATE TABLE transactions (
    sequence         bigint      PRIMARY KEY CHECK (sequence > 0),
    kind             text        NOT NULL CHECK (kind IN ('DEPOSIT', 'WITHDRAWAL')),
    account          integer     NOT NULL REFERENCES accounts,
    asset            integer     NOT NULL REFERENCES assets,
    quantity         bigint      NOT NULL CHECK (quantity > 0),
    transaction_id   text,
    created_at       timestamptz NOT NULL,
    UNIQUE (account, transaction_id)
);

-- ----------------------------------------------------- cursor, outbox

CREATE TABLE projection (
    singleton        boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
    sequence         bigint      NOT NULL CHECK (sequence >= 0),
    epoch            bigint      NOT NULL CHECK (epoch >= 0),
    event_number     bigint      NOT NULL CHECK (event_number >= 0),
    time_ns          bigint      NOT NULL CHECK (time_ns >= 0),
    venue_state      smallint    NOT NULL CHECK (venue_state BETWEEN 0 AND 4),
    updated_at       timestamptz NOT NULL
);

INSERT INTO projection VALUES (true, 0, 0, 0, 0, 2, now());

-- One row a frame: its events as they are in the event log. The stable id of a
-- message is the number of its event: the row's plus its place in the row.
CREATE TABLE outbox (
    event_number     bigint      PRIMARY KEY CHECK (event_number > 0),
    event_count      integer     NOT NULL CHECK (event_count >= 0),
    epoch            bigint      NOT NULL,
    first_sequence   bigint      NOT NULL UNIQUE,
    last_sequence    bigint      NOT NULL,
    time_ns          bigint      NOT NULL,
    written_at       timestamptz NOT NULL DEFAULT now(),
    events           bytea       NOT NULL,
    text             bytea       NOT NULL,
    CHECK (last_sequence >= first_sequence),
    CHECK (length(events) = event_count * 64)
);

ALTER TABLE outbox ALTER COLUMN events SET STORAGE EXTERNAL;

CREATE TABLE outbox_consumers (
    name             text        PRIMARY KEY,
    event_number     bigint      NOT NULL CHECK (event_number >= 0),   -- published up to here
    updated_at       timestamptz NOT NULL DEFAULT now()
);

-- ---------------------------------------------------------------- submissions

CREATE TABLE venue_mode (
    singleton        boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
    mode             text        NOT NULL CHECK (mode IN ('LIVE', 'QUEUE', 'CLOSING')),
    accepted_no      bigint      NOT NULL CHECK (accepted_no >= 0),    -- the last one given
    epoch            bigint      NOT NULL CHECK (epoch >= 0),          -- the newest that claimed or drained
    changed_at       timestamptz NOT NULL
);

INSERT INTO venue_mode VALUES (true, 'LIVE', 0, 0, now());

CREATE TABLE submissions (
    accepted_no      bigint      PRIMARY KEY CHECK (accepted_no > 0),
    account          integer     NOT NULL CHECK (account > 0),
    kind             text        NOT NULL CHECK (kind IN ('order', 'cancel')),
    idempotency_key  text,
    body             bigint      NOT NULL,                             -- digest of what was asked, its 64 bits
    command          bytea       NOT NULL CHECK (length(command) = 128),
    text             bytea       NOT NULL,
    request          jsonb       NOT NULL,
    state            text        NOT NULL CHECK (state IN ('QUEUED', 'CLAIMED', 'DONE', 'CANCELED', 'EXPIRED')),
    epoch            bigint      NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    sequence         bigint,
    order_id         bigint,
    outcome          text        CHECK (outcome IN ('ACCEPTED', 'CANCELED', 'REJECTED', 'DUPLICATE')),
    reason           smallint    NOT NULL DEFAULT 0,
    accepted_at      timestamptz NOT NULL,
    expires_at       timestamptz,
    resolved_at      timestamptz,
    CONSTRAINT submissions_order_has_key CHECK (kind <> 'order' OR idempotency_key IS NOT NULL),
    CONSTRAINT submissions_state_fits CHECK (CASE state
        WHEN 'QUEUED' THEN epoch = 0 AND outcome IS NULL AND resolved_at IS NULL
        WHEN 'CLAIMED' THEN epoch > 0 AND outcome IS NULL AND resolved_at IS NULL
        WHEN 'DONE' THEN outcome IS NOT NULL AND sequence IS NOT NULL AND resolved_at IS NOT NULL
        ELSE outcome IS NULL AND resolved_at IS NOT NULL END)
) WITH (fillfactor = 70);

-- What waits (QUEUED, CLAIMED) is what is not resolved. The indexes say it by resolved_at and not by
-- state, so that a claim changes no indexed column and PostgreSQL can do it within the page.
CREATE INDEX submissions_waiting ON submissions (accepted_no) WHERE resolved_at IS NULL;
CREATE INDEX submissions_open ON submissions (account, accepted_no) WHERE resolved_at IS NULL;
CREATE INDEX submissions_key ON submissions (account, idempotency_key, accepted_no DESC)
    WHERE idempotency_key IS NOT NULL;
-- One at a time may wait under a key; a day after, the key is free again.
CREATE UNIQUE INDEX submissions_key_waiting ON submissions (account, idempotency_key)
    WHERE idempotency_key IS NOT NULL AND resolved_at IS NULL;
CREATE INDEX submissions_sequence ON submissions (sequence) WHERE sequence IS NOT NULL;
