// Produces with and without compression and idempotence, reads it all back in a group, and seeks.
import assert from "node:assert/strict";
import kafkajs from "kafkajs";

const { CompressionTypes, Kafka, logLevel } = kafkajs;
const kafka = new Kafka({ clientId: "test", brokers: [process.argv[2]], logLevel: logLevel.ERROR });
const COUNT = 300;

const admin = kafka.admin();
await admin.connect();
assert.equal(await admin.createTopics({ topics: [{ topic: "t", numPartitions: 3 }] }), true);
assert.equal(await admin.createTopics({ topics: [{ topic: "t", numPartitions: 3 }] }), false);

for (const options of [{}, { idempotent: true, maxInFlightRequests: 1 }]) {
  const producer = kafka.producer(options);
  await producer.connect();
  for (const compression of [CompressionTypes.None, CompressionTypes.GZIP]) {
    const messages = Array.from({ length: COUNT }, (_, n) => ({
      key: `${n}`,
      value: `${n} ${compression} ${options.idempotent ?? false}`,
      headers: { h: "1" },
    }));
    const placed = await producer.send({ topic: "t", acks: -1, compression, messages });
    assert.ok(placed.every(({ errorCode }) => errorCode === 0));
  }
  await producer.disconnect();
}
const totals = await admin.fetchTopicOffsets("t");
assert.equal(totals.reduce((sum, { high }) => sum + Number(high), 0), 4 * COUNT);

async function read(groupId, count, prepare = () => {}) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 500 });
  await consumer.connect();
  await consumer.subscribe({ topic: "t", fromBeginning: true });
  const seen = [];
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`${seen.length} of ${count} records`)), 30_000).unref();
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error));
    consumer.run({
      eachMessage: async ({ partition, message }) => {
        seen.push({ partition, offset: Number(message.offset), value: message.value.toString() });
        if (seen.length === count) resolve();
      },
    });
    prepare(consumer);
  });
  await consumer.stop();
  await consumer.disconnect();
  return seen;
}

const seen = await read("g", 4 * COUNT);
assert.equal(new Set(seen.map(({ value }) => value)).size, 4 * COUNT);
for (const partition of [0, 1, 2]) {
  const offsets = seen.filter((it) => it.partition === partition).map(({ offset }) => offset);
  assert.deepEqual(offsets, offsets.map((_, n) => n));
}

// The group's offsets are at the end now; a seek goes back all the same.
const again = await read("g", 1, (consumer) => {
  consumer.seek({ topic: "t", partition: 1, offset: "5" });
});
assert.deepEqual([again[0].partition, again[0].offset], [1, 5]);

const { groups } = await admin.listGroups();
assert.deepEqual(groups.map(({ groupId }) => groupId), ["g"]);
await admin.deleteGroups(["g"]);
await admin.deleteTopics({ topics: ["t"] });
assert.ok(!(await admin.listTopics()).includes("t"));
await admin.disconnect();
console.log("done");
