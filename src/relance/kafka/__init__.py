"""The only users of confluent_kafka; they serve the engine and know no handler."""
