-- Bids of each session of a bidder: ten seconds without a bid end it.
SELECT bidder, count(*) AS bid_count, window_start, window_end
FROM SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(date_time), INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end
