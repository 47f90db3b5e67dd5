"""Measures relance beside its peers: one machine, one broker, the same topics, taking turns.

Promise: a row that did not handle each record exactly once is no result and says so; a peer that could not be
installed is named; nothing here is set for relance that a user would not get by default.
"""
