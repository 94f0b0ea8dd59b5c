// Package h2serve serves HTTP/2 over TLS to peers that call often, or that are connected for long. It
// does what the server of net/http does for handlers, with fewer goroutines on the way of a call:
// whoever reads a request that is complete serves it, and lets another goroutine read on; whoever
// answers writes what others have to send along with its own. A call that comes alone meets no other
// goroutine. A connection on which nothing happens keeps the goroutine that reads, and no buffers.
//
// It bounds what the peer of a connection can make it hold, and leaves to the listener
// (`internal/edge`) how many connections each may have, and what its frames may cost.
package h2serve
