"""The decisions of relance as pure state machines: no I/O, no threads, an injected clock and random source."""
