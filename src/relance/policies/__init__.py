"""Pure decisions about errors: when to try again, and whether to. No I/O, no clock, no Kafka.

Import from the modules: `relance.policies.retry`, `relance.policies.classify`.
"""
