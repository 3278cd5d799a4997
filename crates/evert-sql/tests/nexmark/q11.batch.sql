SELECT bidder, count(*) AS bid_count, min(date_time) AS window_start,
       max(date_time) + INTERVAL '10 seconds' AS window_end
FROM (
  SELECT bidder, date_time, sum(is_first) OVER (
    PARTITION BY bidder ORDER BY date_time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
  ) AS session
  FROM (
    SELECT bidder, date_time, CASE
      WHEN date_time - INTERVAL '10 seconds'
             < lag(date_time) OVER (PARTITION BY bidder ORDER BY date_time) THEN 0 ELSE 1
    END AS is_first
    FROM bid
  ) gaps
) sessions
GROUP BY bidder, session
