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

func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := (&soak{lasts: 5 * time.Second, shadow: 1 << 30}).measure(t.Context(), &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), " attacks, of which ") {
		t.Error(out.String())
	}
}

func TestLike(t *testing.T) {
	t.Parallel()
	before := state{goroutines: 50, descriptors: 20, live: 10 << 20, resident: 30 << 20}
	if same := before; !same.like(&before, 0) {
		t.Error("the same is not like it")
	}
	for name, leak := range map[string]func(*state){
		"goroutines":  func(s *state) { s.goroutines += 100 },
		"descriptors": func(s *state) { s.descriptors += 100 },
		"live":        func(s *state) { s.live += 100 << 20 },
		"resident":    func(s *state) { s.resident += 100 << 20 },
	} {
		after := before
		leak(&after)
		if after.like(&before, 0) {
			t.Errorf("%s: a leak is like nothing", name)
		}
	}
}
