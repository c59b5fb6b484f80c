import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.cloudevents.CloudEvent;
import io.cloudevents.core.builder.CloudEventBuilder;
import io.cloudevents.core.data.PojoCloudEventData;
import io.cloudevents.core.message.Encoding;
import io.cloudevents.jackson.JsonFormat;
import io.cloudevents.kafka.CloudEventSerializer;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.OffsetDateTime;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/** Publishes events with the CloudEvents SDK for Java: mvn compile exec:java -Dexec.args=BOOTSTRAP, events on standard input. */
public final class Publish {
    public static void main(String[] args) throws Exception {
        ObjectMapper json = new ObjectMapper();
        Map<String, KafkaProducer<String, CloudEvent>> producers = new HashMap<>();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonNode said = json.readTree(line), attributes = said.get("attributes"), data = said.get("data");
            CloudEventBuilder event = CloudEventBuilder.v1();
            event.withData("application/json", PojoCloudEventData.wrap(data, json::writeValueAsBytes));
            attributes.fields().forEachRemaining(each -> {
                String text = each.getValue().asText();
                switch (each.getKey()) {
                    case "id" -> event.withId(text);
                    case "source" -> event.withSource(URI.create(text));
                    case "type" -> event.withType(text);
                    case "subject" -> event.withSubject(text);
                    case "dataschema" -> event.withDataSchema(URI.create(text));
                    case "time" -> event.withTime(OffsetDateTime.parse(text));
                    case "specversion", "datacontenttype" -> { }
                    default -> event.withExtension(each.getKey(), text);
                }
            });
            String mode = said.get("mode").asText();
            KafkaProducer<String, CloudEvent> producer =
                producers.computeIfAbsent(mode, each -> producer(args[0], each.equals("structured")));
            producer.send(new ProducerRecord<>(said.get("topic").asText(), said.get("key").asText(), event.build())).get();
        }
        producers.values().forEach(KafkaProducer::close);
    }

    private static KafkaProducer<String, CloudEvent> producer(String bootstrap, boolean structured) {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", bootstrap);
        config.put("key.serializer", StringSerializer.class);
        config.put("value.serializer", CloudEventSerializer.class);
        if (structured) {
            config.put(CloudEventSerializer.ENCODING_CONFIG, Encoding.STRUCTURED);
            config.put(CloudEventSerializer.EVENT_FORMAT_CONFIG, JsonFormat.CONTENT_TYPE);
        }
        return new KafkaProducer<>(config);
    }
}
