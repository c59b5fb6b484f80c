import java.time.Instant;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/** Uploads one song. Needs kafka-clients alone: {@code mvn -q compile exec:java}. */
public class Upload {
    public static void main(String[] args) throws Exception {
        var environment = System.getenv();
        var servers = environment.getOrDefault("COLDSTART_KAFKA__BOOTSTRAP_SERVERS", "localhost:9092");
        var topic = environment.getOrDefault("COLDSTART_TOPICS__PREFIX", "coldstart.") + "song-uploads";
        var song = """
            {"song_id":"s-81","revision":1,"title":"Small Hours","artist_ids":["a-7"],"tags":{"dream pop":3}}""";
        var record = new ProducerRecord<>(topic, "s-81", song);
        Map.of(
            "ce_id", "s-81/1", // sent again under the same id, it changes nothing
            "ce_source", "upload-service/java",
            "ce_specversion", "1.0",
            "ce_time", Instant.now().toString(),
            "ce_type", "coldstart.song.uploaded.v1",
            "content-type", "application/json"
        ).forEach((name, value) -> record.headers().add(name, value.getBytes()));
        var config = Map.<String, Object>of("bootstrap.servers", servers);
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            var where = producer.send(record).get();
            System.out.printf("sent to %s[%d]%n", where.topic(), where.partition());
        }
    }
}
