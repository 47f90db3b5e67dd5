"""What runs handlers; each takes runs from a `Runtime` and gives them back. No Kafka here."""
