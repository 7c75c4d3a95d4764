"""Name this module in Celery's ``imports``, and every task of the worker is gated.

``app.conf.imports = ("celery_concurrency.signals",)``. It only connects:
``worker/gate.py`` says what happens to a run, ``worker/hooks.py`` how the gate reaches a task.
"""

from celery_concurrency.worker.hooks import connect_hooks, gate_all_tasks

connect_hooks()
gate_all_tasks()
