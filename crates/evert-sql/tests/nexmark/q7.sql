-- Highest bid of each ten seconds.
WITH highest AS (
  SELECT max(price) AS maxprice, window_start, window_end
  FROM TUMBLE(TABLE bid, DESCRIPTOR(date_time), INTERVAL '10 seconds')
  GROUP BY window_start, window_end
)
SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
FROM bid b JOIN highest h ON b.price = h.maxprice
WHERE b.date_time >= h.window_start AND b.date_time < h.window_end
