package jb;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Instant;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicIntegerArray;

/** The handler that every peer calls, and what it counts: the same code for all of them. */
public final class Work {

    private static final ObjectReader READER = new ObjectMapper().readerFor(Order.class);
    private static final int FAILURES = 2;

    private final Args args;
    private final boolean io;
    private final boolean flaky;
    private final boolean live;
    private final AtomicIntegerArray seen;
    private final AtomicIntegerArray failures;
    private final AtomicIntegerArray lastOfKey;
    private final int[] delayUs;
    private final AtomicInteger handled = new AtomicInteger();
    final AtomicInteger duplicates = new AtomicInteger();
    final AtomicInteger disorder = new AtomicInteger();
    final AtomicInteger thrown = new AtomicInteger();
    final CountDownLatch allHandled = new CountDownLatch(1);
    volatile long startNs;
    volatile long halfNs;
    volatile long endNs;
    volatile double cpuAtStart;

    Work(Args args) {
        this.args = args;
        io = args.work.equals("io");
        flaky = args.work.equals("transient");
        live = args.rate > 0 || args.fed;
        seen = new AtomicIntegerArray(args.n);
        failures = new AtomicIntegerArray(flaky ? args.n : 0);
        lastOfKey = new AtomicIntegerArray(args.keys);
        delayUs = live ? new int[args.n] : new int[0];
    }

    /** Whether order i is one of the bad ones: amount -50 in poison, two failures in transient. */
    public static boolean bad(int i, double fraction) {
        return ((i * 2654435761L) & 0xffffffffL) < (long) (fraction * 4294967296.0);
    }

    /** Handles one record, or throws as a user's handler does. */
    public void handle(byte[] value) {
        if (startNs == 0) {
            first();
        }
        Order order = decode(value);
        int i = order.number();
        if (order.amount() <= 0) {
            thrown.incrementAndGet();
            throw new ValidationException("amount " + order.amount() + " of " + order.orderId());
        }
        if (io) {
            try {
                Thread.sleep(args.sleepMs);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                throw new IllegalStateException(e);
            }
        }
        if (flaky && bad(i, args.failFraction) && failures.getAndIncrement(i) < FAILURES) {
            thrown.incrementAndGet();
            throw new TransientException("not now: " + order.orderId());
        }
        done(i, order.ts());
    }

    /** The record is in the dead letter topic, acknowledged: it counts as handled. */
    public void deadLettered(byte[] value) {
        Order order = decode(value);
        done(order.number(), order.ts());
    }

    private void done(int i, long ts) {
        if (!seen.compareAndSet(i, 0, 1)) {
            duplicates.incrementAndGet();
            return;
        }
        if (lastOfKey.getAndSet(i % args.keys, i) > i) {
            disorder.incrementAndGet();
        }
        if (live) {
            delayUs[i] = (int) Math.min(Integer.MAX_VALUE, nowUs() - ts);
        }
        int count = handled.incrementAndGet();
        if (count == args.n / 2) {
            halfNs = System.nanoTime();
        }
        if (count == args.n) {
            endNs = System.nanoTime();
            allHandled.countDown();
        }
    }

    private synchronized void first() {
        if (startNs == 0) {
            cpuAtStart = Bench.cpuSeconds();
            startNs = System.nanoTime();
        }
    }

    private static Order decode(byte[] value) {
        try {
            return READER.readValue(value);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    static long nowUs() {
        Instant now = Instant.now();
        return now.getEpochSecond() * 1_000_000 + now.getNano() / 1000;
    }

    int handled() {
        return handled.get();
    }

    /** The sum of the numbers of all handled records. */
    long checksum() {
        return java.util.stream.IntStream.range(0, args.n).filter(i -> seen.get(i) == 1).asLongStream().sum();
    }

    /** Produce-to-handled delays of the handled records from the given number on, sorted: the good or the flaky ones. */
    int[] delays(int from, boolean ofFlaky) {
        return java.util.stream.IntStream.range(from, args.n)
                .filter(i -> seen.get(i) == 1 && (flaky && bad(i, args.failFraction)) == ofFlaky)
                .map(i -> delayUs[i]).sorted().toArray();
    }
}
