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
)

// TestMain is a host or plugins where a test has started it.
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

func TestEverythingComesBack(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := measure(t.Context(), site{watches: defaultWatches}, 3, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, row := range strings.Split(strings.TrimSpace(out.String()), "\n")[2:] {
		for _, code := range []string{"not_found", "unauthenticated", "permission_denied", "internal", "unimplemented"} {
			if strings.Contains(row, code) {
				t.Errorf("calls failed with other codes than unavailable: %s", row)
			}
		}
	}
}

func TestRestartsAreTold(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := measureRestarts(t.Context(), site{}, 2, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "2 restarts of the host of 1 plugin: median ") || strings.Contains(out.String(), " 0s") {
		t.Errorf("%q", out.String())
	}
}
