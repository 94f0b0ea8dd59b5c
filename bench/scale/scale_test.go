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

	"github.com/masegraye/connect-plugin-go/bench/stage"
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
	if r.n != n || r.enrolled <= 0 || r.live <= 0 || len(r.change) != changes || r.change.At(0) <= 0 || r.caller.At(0) <= 0 {
		t.Errorf("%+v", r)
	}
	if got := spread(stage.Times{3e6, 12345678, 1e6}); got != "3ms (1ms to 12.3ms)" {
		t.Error(got)
	}
	var out bytes.Buffer
	begin(&out)
	r.print(&out)
	reach(&out)
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 3 {
		t.Error(out.String())
	}
}
