"""The Docker Engine of a node, for containers and execs alike: the only room that knows its SDK.

client    the calls, and what a failed call may have done (errors); link is the connection below
images    which image an attempt gets: policies, credentials, what is at hand (image); pulling fetches one
networks  the guarded network that BRIDGE means; firewall has its rules
targets   which container an exec means
"""
