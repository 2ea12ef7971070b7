-- The tables of the demo, the same in all databases: flights that left New York in 2013.

CREATE TABLE airlines (
    carrier TEXT PRIMARY KEY NOT NULL,
    name    TEXT
);

CREATE TABLE airports (
    faa   TEXT PRIMARY KEY NOT NULL,
    name  TEXT,
    lat   DOUBLE PRECISION,
    lon   DOUBLE PRECISION,
    alt   INTEGER,
    tz    INTEGER,
    dst   TEXT,
    tzone TEXT
);

CREATE TABLE planes (
    tailnum      TEXT PRIMARY KEY NOT NULL,
    year         INTEGER,
    type         TEXT,
    manufacturer TEXT,
    model        TEXT,
    engines      INTEGER,
    seats        INTEGER,
    speed        INTEGER,
    engine       TEXT
);

CREATE TABLE flights (
    id             TEXT PRIMARY KEY NOT NULL, -- day, carrier, number and origin: '2013-01-01 UA1545 EWR'
    day            DATE NOT NULL,
    carrier        TEXT NOT NULL REFERENCES airlines,
    flight         INTEGER NOT NULL,
    tailnum        TEXT REFERENCES planes,
    origin         TEXT NOT NULL REFERENCES airports,
    dest           TEXT NOT NULL REFERENCES airports,
    sched_dep_time INTEGER,
    dep_time       INTEGER,
    dep_delay      INTEGER,
    sched_arr_time INTEGER,
    arr_time       INTEGER,
    arr_delay      INTEGER,
    air_time       INTEGER,
    distance       INTEGER
);

CREATE TABLE weather (
    origin     TEXT NOT NULL REFERENCES airports,
    time_hour  TEXT NOT NULL, -- UTC: the local hour exists twice when daylight saving time ends
    temp       DOUBLE PRECISION,
    dewp       DOUBLE PRECISION,
    humid      DOUBLE PRECISION,
    wind_dir   INTEGER,
    wind_speed DOUBLE PRECISION,
    wind_gust  DOUBLE PRECISION,
    precip     DOUBLE PRECISION,
    pressure   DOUBLE PRECISION,
    visib      DOUBLE PRECISION,
    PRIMARY KEY (origin, time_hour)
);
