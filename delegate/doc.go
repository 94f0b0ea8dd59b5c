// Package delegate turns the streams of Connect clients into iterators. The code that
// protoc-gen-connect-plugin generates calls it; nobody else has to.
//
// An iterator of responses makes its call when it is ranged over, each time anew, and
// ends it when the loop is left. Its last pair holds the error, if there is one, and a
// nil message. An iterator of requests ends the call by yielding an error, which is
// what the call then ends with.
package delegate
