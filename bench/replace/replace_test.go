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

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// TestMain is the plugin where a test has launched it.
func TestMain(m *testing.M) {
	if !connectplugin.Launched() {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := plugin(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestReplacementsFailNoCalls(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := plan{replacements: 2, streams: 2, callers: 2}
	if err := p.measure(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !strings.HasPrefix(out.String(), "2 replacements in ") {
		t.Errorf("no replacements in\n%s", out.String())
	}
	for what, none := range map[string]bool{
		"unary calls that succeeded":       false,
		"calls and streams that failed":    true,
		"streams that were told to move":   false,
		"streams that outlasted StopGrace": true,
	} {
		if got := strings.Contains(out.String(), fmt.Sprintf("%-34s %8d\n", what, 0)); got != none {
			t.Errorf("%s: none is %t, want %t in\n%s", what, got, none, out.String())
		}
	}
}
