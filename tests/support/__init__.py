"""What the tests share: real servers, nodes and API, and the invariants asserted after every fault."""
