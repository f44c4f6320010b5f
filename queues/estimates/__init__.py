"""How long an entry will wait: the admission's decision, run forward over what runs and waits.

``runtimes``, ``forward``, ``calibration`` and ``estimate`` are pure; ``stored`` reads and writes;
``service`` is what the rest of the family calls. Nothing of it runs in a look's transaction or in a POST.
"""
