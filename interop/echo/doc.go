// Package echo is the one small service that all peers of the interop table serve
// and call: its words, its handlers in Go, and the cases as a caller in Go plays them.
//
// Every message is a google.protobuf.BytesValue, so that no peer needs generated
// code. What a method is asked for is text in it:
//
//	Unary      answers with what it got
//	Client     answers with how many bytes came, in decimal, when the caller has ended
//	Server     "100" answers with the messages "0" to "99"
//	Bidi       answers each message with itself, and the caller's end with "done"
//	Fail       "9 1000" fails with that code, the text "as asked" and a detail of that many bytes
//	Sleep      "250" answers after that many milliseconds, unless the call ends before
//	Count      answers with how many calls of Sleep and Bidi run
package echo
