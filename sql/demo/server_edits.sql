-- What the server's users do while the tablet is away.

-- A new airline with its plane and its first flight.
INSERT INTO airlines VALUES ('NK', 'Spirit Airlines');
INSERT INTO planes (tailnum, year, manufacturer, model, seats) VALUES ('N601NK', 2011, 'AIRBUS', 'A320-232', 178);
INSERT INTO flights (id, day, carrier, flight, tailnum, origin, dest, sched_dep_time)
VALUES ('2013-12-31 NK197 LGA', '2013-12-31', 'NK', 197, 'N601NK', 'LGA', 'FLL', 700);

-- Flights cancelled in the blizzard of February are removed, and the last day's weather at Newark.
DELETE FROM flights WHERE day IN ('2013-02-08', '2013-02-09') AND dep_time IS NULL;
DELETE FROM weather WHERE origin = 'EWR' AND time_hour >= '2013-12-30';

-- The same rows as the tablet. First 4 July: the departure delay of every United flight.
UPDATE flights SET dep_delay = dep_delay + 1 WHERE day = '2013-07-04' AND carrier = 'UA';

UPDATE airlines SET name = 'United Airlines' WHERE carrier = 'UA';
UPDATE airports SET name = 'Newark Liberty International' WHERE faa = 'EWR';
DELETE FROM flights WHERE id = '2013-01-01 B6725 JFK';
UPDATE flights SET arr_delay = 0 WHERE id = '2013-01-01 DL461 LGA';
