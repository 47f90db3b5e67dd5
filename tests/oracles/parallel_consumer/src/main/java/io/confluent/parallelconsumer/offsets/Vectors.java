package io.confluent.parallelconsumer.offsets; // the encoders are package-private

import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.CommitMode;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelEoSStreamProcessor;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.SortedSet;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import java.util.function.LongPredicate;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Vectors BOOTSTRAP FILE: what Parallel Consumer writes into a commit's metadata, and what it means by that. */
public final class Vectors {

    private static final List<String> rows = new ArrayList<>();

    public static void main(String[] args) throws Exception {
        encoders();
        commits(args[0]);
        String note = "Made by tests/oracles/parallel_consumer with Parallel Consumer 0.5.3.3; its README says how.";
        String maps = String.join(",\n", rows);
        Files.writeString(Path.of(args[1]), "{\"note\": \"" + note + "\",\n\"maps\": [\n" + maps + "\n]}\n");
        System.exit(0); // the stuck handlers of `commits` are still there
    }

    // -- from its encoder classes: every encoding of every shape -------------------------------------

    private static void encoders() throws Exception {
        Random random = new Random(20260101);
        shape("one stuck", 0, 2, o -> o == 0);
        shape("one stuck, far", 4_000_000_000L, 40, o -> o == 0);
        shape("every second", 17, 65, o -> o % 2 == 0);
        shape("one of three done", 1_000, 300, o -> o % 3 != 2);
        shape("random half", 123, 1_200, o -> random.nextBoolean());
        shape("random tenth", 9_999_999_999L, 4_000, o -> random.nextInt(10) == 0);
        shape("random hundredth", 5, 20_000, o -> random.nextInt(100) == 0);
        shape("bursts", 77, 30_000, o -> o / 50 % 7 == 0);
        shape("longer than a short", 0, 100_000, o -> o % 9_973 == 0);
        shape("runs longer than a short", 3, 300_000, o -> o % 99_991 == 0);
        shape("wide and periodic", 1, 900_000, o -> o % 1_000 == 0);
        row("encoder", "nothing above", 42, 42, new TreeSet<>(), "RunLength", text(42, 41, new TreeSet<>(), OffsetEncoding.RunLength));
        row("encoder", "nothing above", 42, 42, new TreeSet<>(), "BitSet", text(42, 41, new TreeSet<>(), OffsetEncoding.BitSet));
    }

    /** The first is always incomplete (it is what holds the commit back) and the last, the highest succeeded, never. */
    private static void shape(String name, long base, int width, LongPredicate incomplete) throws Exception {
        SortedSet<Long> incompletes = new TreeSet<>();
        for (long o = 0; o < width; o++) {
            if (o == 0 || (o < width - 1 && incomplete.test(o))) {
                incompletes.add(base + o);
            }
        }
        for (OffsetEncoding encoding : OffsetEncoding.values()) {
            String text = text(base, base + width - 1, incompletes, encoding);
            if (text != null && text.length() <= OffsetMapCodecManager.DefaultMaxMetadataSize) {
                row("encoder", name, base, base + width, incompletes, encoding.name(), text);
            }
        }
    }

    private static String text(long base, long highestSucceeded, SortedSet<Long> incompletes, OffsetEncoding encoding)
            throws Exception {
        OffsetSimultaneousEncoder.compressionForced = true;
        OffsetSimultaneousEncoder encoder = new OffsetSimultaneousEncoder(base, highestSucceeded, incompletes);
        encoder.addByteBufferEncoder(); // in no release does Parallel Consumer do so itself
        byte[] data = encoder.invoke().getEncodingMap().get(encoding);
        if (data == null) {
            return null; // too long for this one
        }
        byte[] packed = encoder.packEncoding(new EncodedOffsetPair(encoding, ByteBuffer.wrap(data)));
        return OffsetSimpleSerialisation.base64(packed);
    }

    // -- from what a real one commits to a real broker ------------------------------------------------

    private static void commits(String bootstrap) throws Exception {
        Random random = new Random(20260102);
        List<OffsetEncoding> forced = new ArrayList<>(List.of(OffsetEncoding.values()));
        forced.removeIf(e -> e.name().startsWith("ByteArray") || e.name().startsWith("KafkaStreams"));
        for (OffsetEncoding encoding : forced) {
            commit(bootstrap, encoding, "every fifth stuck", 400, o -> o % 5 == 3);
        }
        commit(bootstrap, null, "its choice: one stuck", 50, o -> o == 7);
        commit(bootstrap, null, "its choice: random fifth", 1_000, o -> random.nextInt(5) == 0);
        commit(bootstrap, null, "its choice: compressed", 6_000, o -> random.nextInt(25) == 0);
    }

    private static void commit(String bootstrap, OffsetEncoding encoding, String name, int records, LongPredicate stuck)
            throws Exception {
        OffsetMapCodecManager.forcedCodec = Optional.ofNullable(encoding);
        OffsetSimultaneousEncoder.compressionForced = encoding != null;
        SortedSet<Long> incompletes = new TreeSet<>();
        for (long o = 0; o < records - 1; o++) {
            if (stuck.test(o)) {
                incompletes.add(o);
            }
        }
        String topic = "vectors-" + System.nanoTime();
        TopicPartition tp = new TopicPartition(topic, 0);
        Map<String, Object> client = Map.of("bootstrap.servers", bootstrap);
        try (Admin admin = Admin.create(client)) {
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
            ByteArraySerializer bytes = new ByteArraySerializer();
            try (var producer = new KafkaProducer<>(client, bytes, bytes)) {
                for (int i = 0; i < records; i++) {
                    producer.send(new ProducerRecord<>(topic, 0, null, new byte[] {1}));
                }
            }
            var consumer = new KafkaConsumer<>(
                    Map.of("bootstrap.servers", bootstrap, "group.id", topic, "enable.auto.commit", false,
                            "auto.offset.reset", "earliest", "max.poll.records", records),
                    new ByteArrayDeserializer(), new ByteArrayDeserializer());
            var pc = new ParallelEoSStreamProcessor<byte[], byte[]>(ParallelConsumerOptions.<byte[], byte[]>builder()
                    .consumer(consumer)
                    .ordering(ProcessingOrder.UNORDERED)
                    .commitMode(CommitMode.PERIODIC_CONSUMER_SYNC)
                    .commitInterval(Duration.ofMillis(200))
                    .maxConcurrency(incompletes.size() + 8)
                    .build());
            pc.subscribe(List.of(topic));
            SortedSet<Long> done = Collections.synchronizedSortedSet(new TreeSet<>());
            CountDownLatch never = new CountDownLatch(1);
            pc.poll(context -> {
                long offset = context.offset();
                if (incompletes.contains(offset)) {
                    try {
                        never.await();
                    } catch (InterruptedException e) {
                        throw new IllegalStateException(e);
                    }
                }
                done.add(offset);
            });
            // The last commit: all that can succeed has, and its map ends at the last record.
            OffsetAndMetadata found = null;
            for (int tries = 0; tries < 300; tries++) {
                Thread.sleep(200);
                found = admin.listConsumerGroupOffsets(topic).partitionsToOffsetAndMetadata().get().get(tp);
                if (done.size() == records - incompletes.size() && found != null && !found.metadata().isEmpty()) {
                    var meant = OffsetMapCodecManager.deserialiseIncompleteOffsetMapFromBase64(found.offset(), found.metadata());
                    if (meant.getHighestSeenOffset().get() == records - 1) {
                        break;
                    }
                }
                found = null;
            }
            if (found == null || found.offset() != incompletes.first()) {
                throw new IllegalStateException(name + ": no such commit: " + found + ", done " + done.size());
            }
            byte magic = OffsetSimpleSerialisation.decodeBase64(found.metadata())[0];
            row("commit", name, found.offset(), records, incompletes, OffsetEncoding.decode(magic).name(), found.metadata());
        }
    }

    /** Checked against what Parallel Consumer itself reads from it (ByteArray it can't read). */
    private static void row(String made, String name, long committed, long end, SortedSet<Long> incompletes, String encoding, String text)
            throws Exception {
        if (!encoding.startsWith("ByteArray")) {
            var meant = OffsetMapCodecManager.deserialiseIncompleteOffsetMapFromBase64(committed, text);
            if (!meant.getIncompleteOffsets().equals(incompletes) || meant.getHighestSeenOffset().get() != end - 1) {
                throw new IllegalStateException(name + " " + encoding + ": it reads " + meant);
            }
        }
        List<String> ranges = new ArrayList<>(); // first, last, relative to `committed`
        Long first = null;
        Long last = null;
        for (Long o : incompletes) {
            if (first != null && o != last + 1) {
                ranges.add(range(first - committed, last - committed));
            }
            first = first == null || o != last + 1 ? o : first;
            last = o;
        }
        if (first != null) {
            ranges.add(range(first - committed, last - committed));
        }
        rows.add(String.format("{\"made\": \"%s\", \"shape\": \"%s\", \"encoding\": \"%s\", \"committed\": %d, \"end\": %d,\n"
                + " \"incompletes\": \"%s\",\n \"text\": \"%s\"}",
                made, name, encoding, committed, end, String.join(" ", ranges), text));
        System.out.printf("%s %s %s: %d characters%n", made, name, encoding, text.length());
    }

    private static String range(long first, long last) {
        return first == last ? Long.toString(first) : first + "-" + last;
    }
}
