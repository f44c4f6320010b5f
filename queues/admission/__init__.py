"""Admission: which entries get their capacity now. One pure function (``decide``) of a bounded snapshot.

``packing`` and ``decide`` are pure; ``snapshot`` reads, ``booking`` writes, ``look`` does both under the
type's lock. Explanations and simulations ask the same function.
"""
