WITH counted AS (
  SELECT auction, count(*) AS num, window_start, window_start + INTERVAL '10 seconds' AS window_end
  FROM (
    SELECT b.auction,
           date_bin(INTERVAL '2 seconds', b.date_time, TIMESTAMP '1970-01-01 00:00:00')
             - s.shift AS window_start
    FROM bid b CROSS JOIN (
      VALUES (INTERVAL '0 seconds'), (INTERVAL '2 seconds'), (INTERVAL '4 seconds'),
             (INTERVAL '6 seconds'), (INTERVAL '8 seconds')
    ) AS s (shift)
  ) hops
  GROUP BY auction, window_start
), most AS (
  SELECT max(num) AS maxn, window_start FROM counted GROUP BY window_start
)
SELECT c.auction, c.num, c.window_start, c.window_end
FROM counted c JOIN most m ON c.window_start = m.window_start AND c.num = m.maxn
