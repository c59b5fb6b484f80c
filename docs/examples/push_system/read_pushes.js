// Prints pushes as they come. Needs kafkajs alone: `npm install`, then `node read_pushes.js`.
const { Kafka } = require("kafkajs");

const servers = process.env.COLDSTART_KAFKA__BOOTSTRAP_SERVERS || "localhost:9092";
const prefix = process.env.COLDSTART_TOPICS__PREFIX || "coldstart.";
const consumer = new Kafka({ brokers: servers.split(",") }).consumer({
  groupId: `${prefix}push-system-js`,
  readUncommitted: false, // kafkajs' default: what was aborted was never decided
});

(async () => {
  await consumer.connect();
  await consumer.subscribe({ topic: `${prefix}push-targets`, fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ message }) => {
      const push = JSON.parse(message.value);
      console.log(push.push_id, push.user_id, push.song_id, push.not_before, push.expires_at);
    },
  });
})();
