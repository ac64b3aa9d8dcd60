"""The host of the engine: Faust assigns, fetches and batches; the engine's ledger decides what is done.

`port` says what the engine must offer and imports no Faust; `host.run` runs the two together. Nothing outside
this package imports faust, mode or aiokafka.
"""
