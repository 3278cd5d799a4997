-- Average selling price by seller, over the last ten auctions that closed.
SELECT seller, id, avg(final) OVER (
  PARTITION BY seller ORDER BY date_time, id ROWS BETWEEN 9 PRECEDING AND CURRENT ROW
) AS average
FROM (
  SELECT a.seller, a.id, b.price AS final, b.date_time, row_number() OVER (
    PARTITION BY a.id ORDER BY b.price DESC, b.date_time
  ) AS place
  FROM auction a JOIN bid b ON a.id = b.auction
  WHERE b.date_time BETWEEN a.date_time AND a.expires
) winners
WHERE place <= 1
