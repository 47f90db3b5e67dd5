package jb;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.BiFunction;
import org.apache.kafka.common.utils.AppInfoParser;

/** One run: the input is there or is fed, the peer handles it, one line of JSON says how it went. */
public final class Bench {

    private Bench() {
    }

    public static void main(String name, String[] argv, BiFunction<Args, Work, Peer> makePeer) {
        try {
            System.exit(once(name, argv, makePeer));
        } catch (Throwable e) {
            e.printStackTrace();
            System.exit(1);
        }
    }

    private static int once(String name, String[] argv, BiFunction<Args, Work, Peer> makePeer) throws Exception {
        Args a = new Args(argv);
        if (!a.produce && !a.str("peer", name).equals(name)) {
            throw new IllegalArgumentException("this jar is for --peer " + name);
        }
        Map<String, Object> out = a.produce ? produce(a) : run(name, a, makePeer);
        System.out.println(new ObjectMapper().writeValueAsString(out));
        System.out.flush();
        return Boolean.TRUE.equals(out.get("timed_out")) ? 2 : 0;
    }

    private static Map<String, Object> produce(Args a) throws Exception {
        try (Topics topics = new Topics(a.bootstrap)) {
            topics.ensure(a.topic, a.partitions);
            must(topics.size(a.topic) == 0, "topic " + a.topic + " is not empty");
            long t0 = System.nanoTime();
            int bad = Feeder.feed(a);
            double seconds = (System.nanoTime() - t0) / 1e9;
            must(topics.size(a.topic) == a.n, "topic " + a.topic + " holds " + topics.size(a.topic) + " records, not " + a.n);
            Map<String, Object> out = new LinkedHashMap<>();
            out.put("produced", a.n);
            out.put("topic", a.topic);
            out.put("bad", bad);
            out.put("seconds", round(seconds));
            return out;
        }
    }

    private static Map<String, Object> run(String name, Args a, BiFunction<Args, Work, Peer> makePeer) throws Exception {
        try (Topics topics = new Topics(a.bootstrap)) {
            topics.ensure(a.topic, a.partitions);
            long there = topics.size(a.topic);
            must(there == (a.rate > 0 || a.fed ? 0 : a.n), "topic " + a.topic + " holds " + there
                    + " records; it must hold " + (a.rate > 0 || a.fed ? "none, it is filled now" : "--n " + a.n));
            // A new group would take what an earlier run left in the retry topic.
            must(!a.str("retry", "").equals("topics") || topics.size(a.topic + "-retry") == 0,
                    "--retry topics needs a topic that no such run has used");
            if (a.work.equals("poison") || a.work.equals("transient")) {
                topics.ensure(a.dlt, a.partitions);
            }
            long dltBefore = topics.size(a.dlt);
            Work work = new Work(a);
            Peer peer = makePeer.apply(a, work);
            peer.start();
            peer.go();
            if (a.fed) {
                System.out.println("{\"ready\": true}");
                System.out.flush();
            }
            AtomicReference<Throwable> feederFailed = new AtomicReference<>();
            if (a.rate > 0) {
                Thread feeder = new Thread(() -> Feeder.feed(a), "feeder");
                feeder.setUncaughtExceptionHandler((t, e) -> feederFailed.set(e));
                feeder.setDaemon(true);
                feeder.start();
            }
            long limitNs = System.nanoTime() + TimeUnit.SECONDS.toNanos(a.num("timeout-s", 300));
            boolean all = false;
            while (!all && System.nanoTime() < limitNs && feederFailed.get() == null) {
                all = work.allHandled.await(100, TimeUnit.MILLISECONDS);
            }
            if (feederFailed.get() != null) {
                throw new IllegalStateException(feederFailed.get());
            }
            double cpu = cpuSeconds() - work.cpuAtStart;
            // The topic was empty or new, so its offsets start at 0.
            long committed = topics.committed(a.group, a.topic);
            while (all && committed < a.n && System.nanoTime() < limitNs) {
                peer.commitSoon();
                Thread.sleep(2);
                committed = topics.committed(a.group, a.topic);
            }
            long committedNs = System.nanoTime();
            double handledSeconds = ((all ? work.endNs : committedNs) - work.startNs) / 1e9;
            double seconds = (committedNs - work.startNs) / 1e9;
            Map<String, Object> out = new LinkedHashMap<>();
            out.put("peer", name);
            out.put("work", a.work);
            out.put("n", a.n);
            out.put("seconds", round(seconds));
            out.put("records_per_s", Math.round(work.handled() / seconds));
            out.put("dlt", topics.size(a.dlt) - dltBefore);
            out.put("max_rss_mb", maxRssMb());
            out.put("handled", work.handled());
            out.put("handled_seconds", round(handledSeconds));
            // Less of the JVM's warming up is in it.
            out.put("second_half_records_per_s",
                    all ? Math.round((a.n - a.n / 2) / ((work.endNs - work.halfNs) / 1e9)) : null);
            out.put("cpu_seconds", round(cpu));
            out.put("thrown", work.thrown.get());
            out.put("duplicates", work.duplicates.get());
            out.put("key_disorder", work.disorder.get());
            out.put("concurrency", a.concurrency);
            out.put("checksum", work.checksum());
            if (a.rate > 0 || a.fed) {
                int from = Math.min(a.n / 4, a.num("warm-up", 2 * a.rate));
                percentiles(out, "good", work.delays(from, false));
                if (a.work.equals("transient")) {
                    int[] flaky = work.delays(from, true);
                    percentiles(out, "flaky", flaky);
                    out.put("flaky_samples", flaky.length);
                }
            }
            out.putAll(peer.settings());
            out.put("java", System.getProperty("java.version"));
            out.put("kafka_clients", AppInfoParser.getVersion());
            out.put("timed_out", !all || committed < a.n);
            if (all) {
                peer.stop();
            }
            return out;
        }
    }

    private static void percentiles(Map<String, Object> out, String of, int[] sorted) {
        if (sorted.length > 0) {
            out.put(of + "_p50_ms", round(sorted[sorted.length / 2] / 1e3));
            out.put(of + "_p99_ms", round(sorted[(int) (sorted.length * 0.99)] / 1e3));
            out.put(of + "_max_ms", round(sorted[sorted.length - 1] / 1e3));
        }
    }

    static double cpuSeconds() {
        return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
                .getProcessCpuTime() / 1e9;
    }

    private static long maxRssMb() throws IOException {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) {
                return Long.parseLong(line.replaceAll("\\D", "")) / 1024;
            }
        }
        return -1;
    }

    private static double round(double x) {
        return Math.round(x * 1000) / 1000.0;
    }

    private static void must(boolean ok, String otherwise) {
        if (!ok) {
            throw new IllegalStateException(otherwise);
        }
    }
}
