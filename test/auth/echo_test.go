package auth_test

import (
	"errors"
	"testing"

	"connectrpc.com/connect"
)

// wantAuthRefused fails unless err is the one error that a refused peer gets.
func wantAuthRefused(t *testing.T, err error) {
	t.Helper()
	var coded *connect.Error
	if !errors.As(err, &coded) {
		t.Fatalf("got %v, want a Connect error", err)
	}
	if coded.Code() != connect.CodeUnauthenticated || coded.Message() != "unauthenticated" || len(coded.Details()) != 0 {
		t.Fatalf("got %v %q with %d details, want the constant error", coded.Code(), coded.Message(), len(coded.Details()))
	}
}
