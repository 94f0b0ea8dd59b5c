// Package h2 is the client side of HTTP/2 (RFC 9113, with HPACK of RFC 7541) for
// a proxy: one connection to one server, carrying the calls of many callers. Package
// link makes a client's transport of it.
//
// It exists beside net/http's transport because a proxy has other needs than a
// client. Frames of concurrent calls are gathered and written together, with one
// system call for all of them; a short response is handed over when it is
// complete instead of piece by piece; no goroutine is started for a call; and a
// stream tells whether its request was certainly not processed. Server push is
// refused, and so are frames that would make the connection keep unbounded
// state.
//
// A connection has a goroutine that reads, and while there is something to do another one that
// writes what nobody else may wait for. Timers look after silence. All of that ends with the
// connection. Everything that changes is guarded by one mutex, which is never held while
// reading, writing or calling back.
package h2
