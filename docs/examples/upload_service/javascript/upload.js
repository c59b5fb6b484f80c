// Uploads one song. Needs kafkajs alone: `npm install`, then `node upload.js`.
const { Kafka, Partitioners } = require("kafkajs");

const servers = process.env.COLDSTART_KAFKA__BOOTSTRAP_SERVERS || "localhost:9092";
const prefix = process.env.COLDSTART_TOPICS__PREFIX || "coldstart.";
const song = { song_id: "s-81", revision: 1, title: "Small Hours", artist_ids: ["a-7"], tags: { "dream pop": 3 } };
const headers = {
  ce_id: `${song.song_id}/${song.revision}`, // sent again under the same id, it changes nothing
  ce_source: "upload-service/javascript",
  ce_specversion: "1.0",
  ce_time: new Date().toISOString(),
  ce_type: "coldstart.song.uploaded.v1",
  "content-type": "application/json",
};

(async () => {
  const producer = new Kafka({ brokers: servers.split(",") }).producer({ createPartitioner: Partitioners.DefaultPartitioner });
  await producer.connect();
  const messages = [{ key: song.song_id, value: JSON.stringify(song), headers }];
  const [{ topicName, partition }] = await producer.send({ topic: `${prefix}song-uploads`, messages });
  console.log(`sent to ${topicName}[${partition}]`);
  await producer.disconnect();
})();
