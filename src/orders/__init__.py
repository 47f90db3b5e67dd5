"""The orders service: the reference use of relance, built on nothing but its public names.

`python -m orders` starts it, as the order API that also consumes (`--role api`, port 18082) or as a
consumer only (`--role consumer`, port 18083); both are members of one consumer group.
"""
