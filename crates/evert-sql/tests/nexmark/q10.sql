-- For a file system: the day and the minute of each bid.
SELECT auction, bidder, price, date_time, extra,
       date_time::date AS day, substr(date_time::text, 12, 5) AS minute
FROM bid
