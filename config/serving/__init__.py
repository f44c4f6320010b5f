"""What stands between the server and Django: so that nobody who is slow keeps others from being answered.

The server (granian) calls ``application``: a coroutine for each request, on one thread. A body is read
there, with a deadline, before any thread is taken (``arrivals``). Django answers in a thread, one of
GANTRY_API_THREADS at once (``turns``). What is long is sent piece by piece as its client takes it, from a
place for long answers (``places``), and no thread waits for a client. Connections that do not move are
closed by the kernel (``sockets``). Decision 89.
"""
