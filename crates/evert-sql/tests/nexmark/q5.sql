-- Hot items: the auctions with the most bids of each ten seconds, every two seconds.
WITH counted AS (
  SELECT auction, count(*) AS num, window_start, window_end
  FROM HOP(TABLE bid, DESCRIPTOR(date_time), INTERVAL '2 seconds', INTERVAL '10 seconds')
  GROUP BY auction, window_start, window_end
), most AS (
  SELECT max(num) AS maxn, window_start FROM counted GROUP BY window_start
)
SELECT c.auction, c.num, c.window_start, c.window_end
FROM counted c JOIN most m ON c.window_start = m.window_start AND c.num = m.maxn
