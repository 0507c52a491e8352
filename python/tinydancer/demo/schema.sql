-- The application's own table: what users asked, before anyone decided where it goes.
CREATE TABLE request_log (
    id         bigint PRIMARY KEY,
    user_id    text NOT NULL,
    user_tier  text NOT NULL,
    body       text NOT NULL,
    created_at timestamptz NOT NULL
);
