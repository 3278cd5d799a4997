-- Enrichment from a small table. (The original joins as of the moment of processing, which no
-- replay could repeat; here the table's rows are corrected when it changes.)
SELECT b.auction, b.bidder, b.price, b.date_time, s.value
FROM bid b JOIN side_input s ON b.auction % 10000 = s.key
