// Publishes events with the CloudEvents SDK for JavaScript and kafkajs: node publish.mjs BOOTSTRAP < events
import { readFileSync } from "node:fs";
import { CloudEvent, Kafka as Binding } from "cloudevents";
import { Kafka, logLevel, Partitioners } from "kafkajs";

const producer = new Kafka({ brokers: [process.argv[2]], logLevel: logLevel.ERROR }).producer({
  createPartitioner: Partitioners.DefaultPartitioner,
});
await producer.connect();
for (const line of readFileSync(0, "utf8").trim().split("\n")) {
  const { topic, key, mode, attributes, data } = JSON.parse(line);
  const { headers, value } = Binding[mode](new CloudEvent({ ...attributes, data }));
  const text = typeof value === "string" ? value : JSON.stringify(value);
  const defined = Object.fromEntries(Object.entries(headers).filter(([, told]) => told !== undefined));
  await producer.send({ topic, messages: [{ key, value: text, headers: defined }] });
}
await producer.disconnect();
