def prune_once(limit: int) -> dict[str, int]:
    return {}
