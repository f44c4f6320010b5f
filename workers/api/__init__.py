"""/api/v1: the engine's own API, a folder for each subject.

Each has its views (parse, one service call, render), serializers (the documented shapes), shapes (from a row
to JSON; pure) and schema (what the OpenAPI document says). What they share lies beside them; families use it,
too. Must not import families, nor anything of a node's side: the web process loads no engine.
"""
