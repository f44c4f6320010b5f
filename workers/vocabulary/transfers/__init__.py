"""File operations between sites, the words between a family and the mover that does them. Pure.

reach   how a site is reached and as whom; protocols and acts
names   names that are no UTF-8, in JSON
orders  what a mover is told to do, and what it reports
book    who keeps the books of a batch: reached by name, never by import
"""
