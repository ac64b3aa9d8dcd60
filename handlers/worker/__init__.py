"""The worker: everything around a handler. `Worker` and `WorkerOptions` are what a program needs of it."""

from keshi.handlers.worker.service import Worker, WorkerOptions

__all__ = ["Worker", "WorkerOptions"]
