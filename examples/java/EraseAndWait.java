import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Asks keshi to erase a person's data, and waits until it is done. Needs kafka-clients and Jackson, nothing of keshi.
 *
 * <p>Usage: {@code java -cp … EraseAndWait BOOTSTRAP TYPE VALUE [structured|binary]}, such as
 * {@code EraseAndWait 127.0.0.1:9092 customer_id C-000001}. The exit code is 0 if the request was closed, 3 if it was
 * rejected, 4 if it was neither in time: it goes on.
 */
public final class EraseAndWait {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String PREFIX = System.getenv().getOrDefault("KESHI_KAFKA_PREFIX", "keshi.");
    private static final String TYPE = "keshi.EraseSubject.v1";
    private static final Duration PATIENCE = Duration.ofSeconds(60);

    public static void main(String[] arguments) throws Exception {
        boolean binary = arguments.length > 3 && arguments[3].equals("binary");
        // Yours, one for each request: keep it before you send. Sending again under it does no harm.
        String requestId = UUID.randomUUID().toString();
        Map<String, Object> command = command(requestId, arguments[1], arguments[2]);

        try (KafkaConsumer<String, byte[]> answers = answers(arguments[0]);
                KafkaProducer<String, byte[]> producer = producer(arguments[0])) {
            ProducerRecord<String, byte[]> message =
                    binary ? binary(requestId, command) : structured(requestId, command);
            RecordMetadata sent = producer.send(message).get(30, TimeUnit.SECONDS); // now Kafka has it
            System.out.println(requestId);
            System.exit(waitFor(answers, requestId, sent));
        }
    }

    /** What is asked for. Who judged it, who asked and when it arrived stand in the record in the end. */
    private static Map<String, Object> command(String requestId, String type, String value) {
        String now = Instant.now().toString();
        return Map.of(
                "request_id", requestId,
                "identifiers", List.of(Map.of("type", type, "value", value)),
                "regime", "appi",
                "ground", "appi.35-5",
                "requested_by", Map.of("kind", "person", "identity_evidence", List.of("check:2026-0042")),
                "assessed", Map.of("by", "staff:kato", "at", now),
                "arrived", Map.of("at", now, "channel", "channel:web-form"));
    }

    /** A CloudEvent in structured mode: all of it is JSON in the value. The header may be left out. */
    private static ProducerRecord<String, byte[]> structured(String requestId, Map<String, Object> command)
            throws Exception {
        Map<String, Object> event = Map.of(
                "specversion", "1.0",
                "id", requestId + "/EraseSubject",
                "source", "urn:example:dsar",
                "type", TYPE,
                "datacontenttype", "application/json",
                "data", command);
        ProducerRecord<String, byte[]> message =
                new ProducerRecord<>(PREFIX + "commands", requestId, JSON.writeValueAsBytes(event));
        message.headers().add("content-type", "application/cloudevents+json; charset=UTF-8".getBytes("UTF-8"));
        return message;
    }

    /** The same in binary mode: attributes are headers, the value is the data alone. */
    private static ProducerRecord<String, byte[]> binary(String requestId, Map<String, Object> command)
            throws Exception {
        ProducerRecord<String, byte[]> message =
                new ProducerRecord<>(PREFIX + "commands", requestId, JSON.writeValueAsBytes(command));
        Map<String, String> headers = Map.of(
                "ce_specversion", "1.0",
                "ce_id", requestId + "/EraseSubject",
                "ce_source", "urn:example:dsar",
                "ce_type", TYPE,
                "content-type", "application/json");
        for (Map.Entry<String, String> header : headers.entrySet()) {
            message.headers().add(header.getKey(), header.getValue().getBytes("UTF-8"));
        }
        return message;
    }

    private static int waitFor(KafkaConsumer<String, byte[]> answers, String requestId, RecordMetadata sent)
            throws Exception {
        Instant end = Instant.now().plus(PATIENCE);
        while (Instant.now().isBefore(end)) {
            for (ConsumerRecord<String, byte[]> record : answers.poll(Duration.ofMillis(200))) {
                if (!requestId.equals(record.key())) {
                    continue;
                }
                JsonNode event = JSON.readTree(record.value());
                JsonNode data = event.get("data");
                switch (event.get("type").asText()) {
                    case "keshi.RequestClosed.v1" -> {
                        System.out.println("closed: " + data.at("/closure/verdict").asText());
                        return 0;
                    }
                    case "keshi.RequestRejected.v1" -> {
                        // A rejection names the command it is about: an earlier one of this id may have had its own.
                        if (data.at("/command/partition").asInt() == sent.partition()
                                && data.at("/command/offset").asLong() == sent.offset()) {
                            String field = data.path("field").asText();
                            System.out.println("rejected: " + data.get("code").asText() + " at " + field);
                            return 3;
                        }
                    }
                    default -> { } // accepted, overdue, or newer than this program: the closure says it all again
                }
            }
        }
        System.out.println("not over yet");
        return 4;
    }

    /** Reads `requests` from now on. Made before anything is sent, so that no answer is missed. */
    private static KafkaConsumer<String, byte[]> answers(String bootstrap) {
        KafkaConsumer<String, byte[]> consumer = new KafkaConsumer<>(
                Map.of("bootstrap.servers", bootstrap, "enable.auto.commit", false),
                new StringDeserializer(),
                new ByteArrayDeserializer());
        List<TopicPartition> all = consumer.partitionsFor(PREFIX + "requests").stream()
                .map(p -> new TopicPartition(p.topic(), p.partition()))
                .toList();
        consumer.assign(all);
        consumer.seekToEnd(all);
        all.forEach(consumer::position); // a seek is carried out when it is first asked for
        return consumer;
    }

    private static KafkaProducer<String, byte[]> producer(String bootstrap) {
        return new KafkaProducer<>(
                Map.of("bootstrap.servers", bootstrap, "acks", "all", "enable.idempotence", true),
                new StringSerializer(),
                new ByteArraySerializer());
    }
}
