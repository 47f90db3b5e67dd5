"""The module on one machine: starts, checks and stops the broker, the order services and the console.

Promise: whatever it started it can find again (or says why not), and nothing it didn't start is ever stopped.
The shell scripts beside this package are thin; `up`, `down`, `logs` and `validate` live here. Everything is
set by the environment (`stack.settings`), so a second stack can run beside the first one.
"""
