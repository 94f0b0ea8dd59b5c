package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain is one of the processes where a test has started it.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != "-role" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestPlugins(t *testing.T) {
	t.Parallel()
	const n = 5
	b := bench{n: n, idle: time.Second}
	r, err := b.measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.n != n || r.enrolled <= 0 || r.live <= 0 || r.change <= 0 || r.caller <= 0 {
		t.Errorf("%+v", r)
	}
	var out bytes.Buffer
	begin(&out)
	r.print(&out)
	reach(&out)
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 3 {
		t.Error(out.String())
	}
}
