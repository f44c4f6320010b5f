"""/api/v1/queues: what operators declare (pools, policies, quotas), and what there is of it (capacity).

As the folders of ``workers.api``: views, serializers, shapes, schema; ``parsing`` checks what is sent,
``reading`` and ``services`` ask and change the database. Outside /v1, because any word there is a type.
"""
