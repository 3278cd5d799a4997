// Two members share four partitions; one leaves and the other reads everything.
import assert from "node:assert/strict";
import kafkajs from "kafkajs";

const { Kafka, logLevel } = kafkajs;
const kafka = new Kafka({ clientId: "test", brokers: [process.argv[2]], logLevel: logLevel.NOTHING });
const admin = kafka.admin();
await admin.connect();
await admin.createTopics({ topics: [{ topic: "t", numPartitions: 4 }] });

async function until(check, what) {
  for (let tries = 0; tries < 300; tries += 1) {
    if (check()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`not in time: ${what}`);
}

async function member(seen) {
  const consumer = kafka.consumer({ groupId: "g", sessionTimeout: 6000, heartbeatInterval: 300 });
  const state = { consumer, share: [] };
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    state.share = payload.memberAssignment.t ?? [];
  });
  await consumer.connect();
  await consumer.subscribe({ topic: "t", fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ message }) => seen.add(message.value.toString()),
  });
  return state;
}

const seen = new Set();
const one = await member(seen);
await until(() => one.share.length === 4, "one has everything");
const two = await member(seen);
await until(() => one.share.length === 2 && two.share.length === 2, "they share");
assert.deepEqual([...one.share, ...two.share].sort(), [0, 1, 2, 3]);

const producer = kafka.producer();
await producer.connect();
const send = (from, to) => {
  const numbers = Array.from({ length: to - from }, (_, n) => `${from + n}`);
  return producer.send({ topic: "t", messages: numbers.map((n) => ({ key: n, value: n })) });
};
await send(0, 200);
await until(() => seen.size === 200, "every record is read");
await one.consumer.disconnect();
await until(() => two.share.length === 4, "the other takes over");
await send(200, 400);
await until(() => seen.size === 400, "nothing is skipped");
await two.consumer.disconnect();
await producer.disconnect();
await admin.disconnect();
console.log("done");
