"""The decisions of relance as pure state machines: no I/O, no threads; clock and chance are passed in."""
