// Queries with and without parameters, prepared by name, in transactions and from a pool.

import assert from "node:assert/strict";
import pg from "pg";

const [host, port] = process.argv[2].split(":");
const pool = new pg.Pool({ host, port: Number(port), user: "evert", database: "evert", max: 4 });

await pool.query(
  "CREATE TABLE payments (id bigint PRIMARY KEY, merchant text, amount numeric(10,2), " +
    "captured boolean, paid_at timestamptz, body json, raw bytea)",
);
await pool.query(
  "CREATE MATERIALIZED VIEW totals AS SELECT merchant, sum(amount) AS total FROM payments GROUP BY merchant",
);

const moment = new Date("2024-02-29T12:00:00.123Z");
const insert = "INSERT INTO payments VALUES ($1, $2, $3, $4, $5, $6, $7)";
await pool.query(insert, [1, "tea", "4.50", true, moment, { a: [1, null] }, Buffer.from([0, 255])]);
await pool.query(insert, [2, null, null, null, null, null, null]);

const { rows, fields } = await pool.query("SELECT * FROM payments ORDER BY id");
assert.deepEqual(rows[0], {
  id: "1", // the driver keeps bigint as text
  merchant: "tea",
  amount: "4.50",
  captured: true,
  paid_at: moment,
  body: { a: [1, null] },
  raw: Buffer.from([0, 255]),
});
assert.ok(Object.values(rows[1]).slice(1).every((value) => value === null));
assert.equal(fields[2].name, "amount");

// A statement by name is parsed once and bound again.
for (const id of [1, 2, 3]) {
  const found = await pool.query({ name: "by-id", text: "SELECT merchant FROM payments WHERE id = $1", values: [id] });
  assert.equal(found.rowCount, id < 3 ? 1 : 0);
}

const client = await pool.connect();
await client.query("BEGIN");
await client.query(insert, [3, "tea", 1.25, false, null, null, null]);
await client.query("ROLLBACK");
await client.query("BEGIN");
const updated = await client.query("UPDATE payments SET amount = amount * 2 WHERE id = $1", [1]);
assert.equal(updated.rowCount, 1);
await client.query("COMMIT");
// The session that wrote reads its own write in the view.
const { rows: totals } = await client.query("SELECT total FROM totals WHERE merchant = $1", ["tea"]);
assert.deepEqual(totals, [{ total: "9.00" }]);

await assert.rejects(client.query("SELECT * FROM missing"), { code: "42P01" });
await assert.rejects(client.query("SELECT $1::int", ["x"]), { code: "22P02" });
const several = await client.query("SELECT 1 AS one; SELECT 2 AS two");
assert.deepEqual(several.map((result) => Number(Object.values(result.rows[0])[0])), [1, 2]);
client.release();

await Promise.all(
  Array.from({ length: 40 }, (_, n) => pool.query(insert, [100 + n, "m", n, true, null, null, null])),
);
const { rows: [{ n }] } = await pool.query("SELECT count(*)::int AS n FROM payments WHERE id = ANY($1::bigint[]) OR id >= 100", [[1, 2]]);
assert.equal(n, 42);

await pool.end();
console.log("done");
