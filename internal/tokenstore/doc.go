// Package tokenstore knows who is who on a host, and until when.
//
// A [Store] issues identities with bearer tokens, verifies and renews them, ends them, and says once
// of each that it ended. Capability grants live in the same store and die with their owner.
//
// Tokens are opaque: 256 random bits, of which the store keeps only the SHA-256. A token may be bound
// to the client certificate that it was issued to, as in RFC 8705. Verification takes no lock at all,
// allocates nothing, and treats a runtime id that does not exist like one that does, with a dummy
// record, so that its duration tells nothing. Reading goes over tables that one writer at a time
// changes; every change goes through one function, which numbers it.
//
// Deadlines follow the monotonic clock where there is one: setting the wall clock back prolongs no
// token.
package tokenstore
