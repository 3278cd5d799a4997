// Reads, pipelines, transactions, scans and notifications, from clients with default settings.

import assert from "node:assert/strict";
import Redis from "ioredis";

const [host, port] = process.argv[2].split(":");
const options = { host, port: Number(port), retryStrategy: null };
const redis = new Redis(options);

assert.equal(await redis.ping(), "PONG");
assert.deepEqual(await redis.hgetall("totals:tea"), { merchant: "tea", n: "2", total: "6.50" });
assert.equal(await redis.hget("totals:tea", "total"), "6.50");
assert.deepEqual(await redis.hmget("totals:tea", "n", "nothing"), ["2", null]);
assert.deepEqual(await redis.hgetall("totals:nobody"), {});
assert.equal(await redis.exists("totals:tea", "totals:nobody"), 1);
assert.equal(await redis.type("totals:tea"), "hash");
await assert.rejects(redis.get("totals:tea"), /WRONGTYPE/);
await assert.rejects(redis.hset("totals:tea", "n", "3"), /READONLY.*topic "payments"/);

const piped = await redis.pipeline().hget("totals:tea", "n").hlen("totals:tea").get("totals:nobody").exec();
assert.deepEqual(piped, [[null, "2"], [null, 3], [null, null]]);
const both = await redis.multi().hget("totals:tea", "n").call("EVERT.POSITION").exec();
assert.equal(both[0][1], "2");
assert.ok(both[1][1] > 0);

const keys = [];
for await (const page of redis.scanStream({ match: "payments:*", count: 2 })) keys.push(...page);
assert.deepEqual(keys.sort(), ["payments:1", "payments:2", "payments:3"]);
assert.deepEqual(JSON.parse(await redis.call("JSON.GET", "totals:tea", "$.n")), [2]);

// A message when a row changes: whoever runs this changes one when it says so.
const listener = new Redis(options);
const told = new Promise((resolve) => listener.on("message", (...message) => resolve(message)));
assert.equal(await listener.subscribe("__keyspace@0__:totals:tea"), 1);
console.log("listening");
assert.deepEqual(await told, ["__keyspace@0__:totals:tea", "hset"]);

listener.disconnect();
await redis.quit();
console.log("done");
