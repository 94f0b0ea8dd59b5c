package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// tally counts what became of the calls that reached a host.
type tally struct {
	mu     sync.Mutex
	counts counts
}

// counts are the counts of a [tally].
type counts struct {
	Received int            `json:"received"` // by the host
	Routed   int            `json:"routed"`   // passed on by the router
	Answered int            `json:"answered"` // with a response of the provider
	Outcomes map[string]int `json:"outcomes"` // of the routed calls, by the router's own word
	Refused  map[string]int `json:"refused"`  // by the host, by reason
}

// Enabled implements [slog.Handler].
func (t *tally) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements [slog.Handler]: it counts what the router logs of each call.
func (t *tally) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "routed call" {
		return nil
	}
	var outcome string
	var status int64
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "outcome":
			outcome = a.Value.String()
		case "status":
			status = a.Value.Int64()
		}
		return true
	})
	t.routed(outcome, status)
	return nil
}

// WithAttrs implements [slog.Handler].
func (t *tally) WithAttrs([]slog.Attr) slog.Handler { return t }

// WithGroup implements [slog.Handler].
func (t *tally) WithGroup(string) slog.Handler { return t }

func (t *tally) receive() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Received++
}

// audit counts what the host refused.
func (t *tally) audit(e connectplugin.AuditEvent) {
	switch e.Kind {
	case connectplugin.AuditDenied, connectplugin.AuditAuthFailed, connectplugin.AuditLimited:
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.counts.Refused == nil {
			t.counts.Refused = map[string]int{}
		}
		t.counts.Refused[e.Reason]++
	default:
	}
}

// routed counts a call that the router passed on.
func (t *tally) routed(outcome string, status int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Routed++
	if status != 0 {
		t.counts.Answered++
	}
	if t.counts.Outcomes == nil {
		t.counts.Outcomes = map[string]int{}
	}
	t.counts.Outcomes[outcome]++
}

// store writes the counts to a file of this process.
func (t *tally) store(dir string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	data, err := json.Marshal(t.counts)
	if err != nil {
		return fmt.Errorf("counts: %w", err)
	}
	name := filepath.Join(dir, fmt.Sprintf("%d.json", os.Getpid()))
	if err := os.WriteFile(name, data, 0o600); err != nil { //nolint:gosec,mnd // in a directory of the run, for its owner
		return fmt.Errorf("counts: %w", err)
	}
	return nil
}

// loadCounts adds up the counts of all processes.
func loadCounts(dir string) (counts, error) {
	sum := counts{Outcomes: map[string]int{}, Refused: map[string]int{}}
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return sum, fmt.Errorf("counts: %w", err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name) //nolint:gosec // written by the processes that this one started
		if err != nil {
			return sum, fmt.Errorf("counts: %w", err)
		}
		var c counts
		if err := json.Unmarshal(data, &c); err != nil {
			return sum, fmt.Errorf("counts: %w", err)
		}
		sum.add(c)
	}
	return sum, nil
}

func (c *counts) add(other counts) {
	c.Received += other.Received
	c.Routed += other.Routed
	c.Answered += other.Answered
	for outcome, n := range other.Outcomes {
		c.Outcomes[outcome] += n
	}
	for reason, n := range other.Refused {
		c.Refused[reason] += n
	}
}
