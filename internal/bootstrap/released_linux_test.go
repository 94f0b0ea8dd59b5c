package bootstrap_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/bootstrap"
)

// Whoever writes hears of the end of the last reader at once, and writes go on meanwhile.
func TestReleased(t *testing.T) {
	t.Parallel()
	theirs, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ours.Close() }()
	other, cancel := context.WithCancel(t.Context())
	cancel()
	if bootstrap.Released(other, ours) {
		t.Error("released, and somebody has it")
	}
	_ = ours.SetReadDeadline(time.Time{})
	released := make(chan bool, 1)
	go func() { released <- bootstrap.Released(t.Context(), ours) }()
	for range 10 {
		if err := bootstrap.Write(ours, &bootstrap.Message{SelfID: "a"}); err != nil {
			t.Fatal(err)
		}
		if _, err := bootstrap.Read(theirs); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-released:
		t.Fatal("released, and somebody reads")
	default:
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	if !<-released {
		t.Error("not released, and nobody has it")
	}
	if !bootstrap.Released(t.Context(), ours) {
		t.Error("not released, and it was before")
	}
}
