package jb;

import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/** The options of both mains, all of them {@code --name value} but the bare {@code --produce}. */
public final class Args {

    private static final Set<String> KNOWN = new TreeSet<>(Arrays.asList(
            "peer", "work", "mode", "retry", "bootstrap", "topic", "partitions", "n", "group", "dlt", "sleep-ms",
            "concurrency", "keys", "fail-fraction", "rate", "warm-up", "fed", "pad", "timeout-s", "max-poll-records",
            "dlt-linger-ms", "seek-after-error", "paused-poll-ms", "verify-partition", "batch-size",
            "commit-interval-ms", "min-retry-delay-ms", "load-factor", "backoff-ms", "settings", "fetch-max-wait-ms"));

    private final Map<String, String> given = new HashMap<>();
    public final boolean produce;
    public final String work;
    public final String bootstrap;
    public final String topic;
    public final String dlt;
    public final String group;
    public final int n;
    public final int partitions;
    public final int keys;
    public final int concurrency;
    public final int sleepMs;
    public final int backoffMs;
    public final double failFraction;
    /** Records a second while the peer runs; 0: somebody else fills the topic. */
    public final int rate;
    /** Somebody else fills the topic while the peer runs, from when it says that it is ready. */
    public final boolean fed;
    /** Tuned by the peer's own documentation, or as it comes. */
    public final boolean fair;
    /** -1: the client's own. */
    public final int dltLingerMs;
    /** -1: the client's own, 500. */
    public final int fetchMaxWaitMs;

    public Args(String[] argv) {
        boolean produceMode = false;
        for (int i = 0; i < argv.length; i++) {
            String name = argv[i].startsWith("--") ? argv[i].substring(2) : argv[i];
            if (name.equals("produce")) {
                produceMode = true;
            } else if (!KNOWN.contains(name) || i + 1 == argv.length) {
                throw new IllegalArgumentException("unknown or incomplete option " + argv[i] + "; known: --produce and " + KNOWN);
            } else {
                given.put(name, argv[++i]);
            }
        }
        produce = produceMode;
        work = choice("work", "fast", "fast", "poison", "io", "transient");
        bootstrap = str("bootstrap", "127.0.0.1:19092");
        topic = str("topic", null);
        if (topic == null) {
            throw new IllegalArgumentException("--topic is needed");
        }
        dlt = str("dlt", topic + "-dlt");
        group = str("group", "jb-" + Long.toString(System.currentTimeMillis(), 36));
        n = num("n", 10_000);
        partitions = num("partitions", 6);
        keys = num("keys", 1000);
        concurrency = num("concurrency", 1);
        sleepMs = num("sleep-ms", 10);
        backoffMs = num("backoff-ms", 100);
        failFraction = Double.parseDouble(str("fail-fraction", "0.01"));
        rate = num("rate", 0);
        fed = yes("fed", false);
        fair = choice("settings", "fair", "fair", "stock").equals("fair");
        dltLingerMs = num("dlt-linger-ms", fair ? 0 : -1);
        fetchMaxWaitMs = num("fetch-max-wait-ms", -1);
    }

    public String str(String name, String otherwise) {
        if (!KNOWN.contains(name)) {
            throw new IllegalStateException("not in the list: " + name);
        }
        return given.getOrDefault(name, otherwise);
    }

    public int num(String name, int otherwise) {
        String s = str(name, null);
        return s == null ? otherwise : Integer.parseInt(s.replace("_", ""));
    }

    /** The consumer's settings that both peers share. */
    public Map<String, Object> consumer() {
        Map<String, Object> p = new HashMap<>();
        p.put("bootstrap.servers", bootstrap);
        p.put("auto.offset.reset", "earliest");
        p.put("enable.auto.commit", false);
        p.put("max.poll.records", num("max-poll-records", 500));
        if (fetchMaxWaitMs >= 0) {
            p.put("fetch.max.wait.ms", fetchMaxWaitMs);
        }
        return p;
    }

    /** The dead letter producer's. */
    public Map<String, Object> producer() {
        Map<String, Object> p = new HashMap<>();
        p.put("bootstrap.servers", bootstrap);
        if (dltLingerMs >= 0) {
            p.put("linger.ms", dltLingerMs);
        }
        return p;
    }

    public boolean yes(String name, boolean otherwise) {
        return Boolean.parseBoolean(str(name, Boolean.toString(otherwise)));
    }

    public String choice(String name, String otherwise, String... allowed) {
        String s = str(name, otherwise);
        if (!Arrays.asList(allowed).contains(s)) {
            throw new IllegalArgumentException("--" + name + " is one of " + Arrays.toString(allowed) + ", not " + s);
        }
        return s;
    }
}
