"""The chaos rig: a cluster, consumers, faults, and a checker that can fail.

Arrows: command → rig → (cluster, nemesis, truth, checker, report); member processes use relance as any user
would, and are watched at their border with Kafka (`watched`), so nothing in src/ knows of the rig.
"""
