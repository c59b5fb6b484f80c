// Reads COUNT records of a topic with kafkajs, as it is installed, and prints their values: node read_pushes.mjs BOOTSTRAP TOPIC COUNT
import { Kafka, logLevel } from "kafkajs";

const [, , bootstrap, topic, count] = process.argv;
const consumer = new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR }).consumer({
  groupId: `${topic}.kafkajs`,
});
consumer.on("consumer.crash", ({ payload }) => {
  console.error(payload.error.message);
  if (!payload.restart) process.exit(1);
});
await consumer.connect();
await consumer.subscribe({ topic, fromBeginning: true });
let left = Number(count);
await consumer.run({
  eachMessage: async ({ message }) => {
    console.log(message.value.toString());
    if (--left === 0) process.exit(0);
  },
});
