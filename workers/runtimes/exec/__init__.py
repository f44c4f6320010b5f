"""Commands inside running containers: docker exec, made killable and durable.

runtime       the protocol, for execs
wrapper       what takes the place of a command with secret arguments
start         one exec, and what is known of it before it begins; listening gives the listener its orders

pulse, track  whether the engine answers; what this node knows of one attempt
watch, kill   how it ends, and ending it
"""
