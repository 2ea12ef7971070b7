-- What the tablet's user does meanwhile, without a network.

-- An extra flight, and a plane that the package did not describe.
INSERT INTO planes (tailnum, year, manufacturer, model, seats) VALUES ('N999TB', 2013, 'BOEING', '737-924ER', 179);
INSERT INTO flights (id, day, carrier, flight, tailnum, origin, dest, sched_dep_time)
VALUES ('2013-12-31 UA9001 EWR', '2013-12-31', 'UA', 9001, 'N999TB', 'EWR', 'IAH', 1830);

-- Gusts at LaGuardia are entered where they were missing, one day of Kennedy's weather is removed.
UPDATE weather SET wind_gust = round(wind_speed * 1.5, 5)
WHERE origin = 'LGA' AND wind_gust IS NULL AND time_hour LIKE '2013-06-%';
DELETE FROM weather WHERE origin = 'JFK' AND time_hour LIKE '2013-03-10%';

-- The same rows as the server. 4 July again: the arrival delay of every United flight.
UPDATE flights SET arr_delay = arr_delay - 1 WHERE day = '2013-07-04' AND carrier = 'UA';

UPDATE airlines SET name = 'United' WHERE carrier = 'UA';
UPDATE airports SET name = 'Newark' WHERE faa = 'EWR';
UPDATE flights SET dest = 'SJU' WHERE id = '2013-01-01 B6725 JFK';
DELETE FROM flights WHERE id = '2013-01-01 DL461 LGA';
