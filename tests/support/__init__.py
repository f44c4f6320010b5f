"""What the tests share: real servers, real nodes, a real API, and the invariants asserted after every fault."""
