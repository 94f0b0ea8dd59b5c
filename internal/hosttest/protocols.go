package hosttest

import (
	"testing"

	"connectrpc.com/connect"
)

// Uncompressed lets a client ask for answers as they are: under the race detector
// compression costs most of the time, and a stream that nobody reads takes in more.
var Uncompressed = connect.WithAcceptCompression("gzip", nil, nil)

// Protocols are the client options of the three protocols.
var Protocols = map[string][]connect.ClientOption{
	"connect":  nil,
	"grpc":     {connect.WithGRPC()},
	"grpc-web": {connect.WithGRPCWeb()},
}

// ErrorOf leaves out what came beside an error.
func ErrorOf[T any](_ T, err error) error { return err }

// WantCode fails unless a handshake ended as it should; zero is success.
func WantCode(t *testing.T, what string, got, want connect.Code) {
	t.Helper()
	if got != want {
		t.Errorf("%s: code %v, want %v (0 is success)", what, got, want)
	}
}

// CodeOrZero is the code of an error, and zero for none.
func CodeOrZero(err error) connect.Code {
	if err == nil {
		return 0
	}
	return connect.CodeOf(err)
}
