"""Commands inside running containers: docker exec, made killable and durable.

runtime       the protocol, for execs
scripts       what is executed inside the container: the wrapper, and the reader of what it left there
start         one exec, and what is known of it before it begins
conversation  with the wrapper, over the exec's own streams; stream is one of them as bytes
pump, track   output into the capped files; what this node knows of one attempt
watch, kill   how it ends, and ending it
"""
