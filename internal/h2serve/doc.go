// Package h2serve serves HTTP/2 over TLS to peers that call often. It does what the server of
// net/http does for handlers, with fewer goroutines on the way of a call: whoever reads a request
// that is complete serves it, and lets another goroutine read on; whoever answers writes what
// others have to send along with its own. A call that comes alone meets no other goroutine, and a
// connection on which nothing happens has one goroutine and no buffer but for reading.
//
// It bounds what a connection can make it hold. What a peer may cost that proved nothing, and how
// many connections each may have, is the listener's care.
package h2serve
