"""Between the server and the views: who is it, may it, how is it read, how is it answered and counted.

middleware, bodies, throttles, peers      the gate: slow bodies, rates, who is at the other end
authentication, login                     credentials into an identity; the admin's own way in
negotiation, errors                       JSON and its parser; every error in its family's envelope
trail, metrics                            what was done is recorded and counted
health, openapi                           pages of the service itself
"""
