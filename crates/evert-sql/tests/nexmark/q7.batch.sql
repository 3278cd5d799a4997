WITH binned AS (
  SELECT *, date_bin(INTERVAL '10 seconds', date_time, TIMESTAMP '1970-01-01 00:00:00') AS start
  FROM bid
), highest AS (
  SELECT max(price) AS maxprice, start FROM binned GROUP BY start
)
SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
FROM binned b JOIN highest h ON b.price = h.maxprice AND b.start = h.start
