package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"strings"
	"time"
)

// front is a balancer between a client and the host, in one of its ways.
type front struct {
	name    string
	program string                                // that has to be installed
	config  func(dir, to string, s *scene) string // its configuration; it listens where s says
	args    func(dir string) []string
	ends    bool   // TLS ends at it
	proxy   bool   // it says where its clients are, in a PROXY header
	module  string // a file that has to be there, too; empty for none
}

// frontCases are what is played through each, in this order.
var frontCases = []string{"bound", "unbound", "unary", "stream", "error", "address"}

// playFronts plays the cases through each balancer that is installed, and prints a table.
// The error says that something was not as docs/deployment.md says.
func playFronts(ctx context.Context, out io.Writer, logger *slog.Logger) error {
	_, _ = fmt.Fprintf(out, "\n%-22s %s\n", "in front of the host", strings.Join(frontCases, "  "))
	var reasons []string
	for _, f := range fronts() {
		program, why := f.find()
		if why != "" {
			_, _ = fmt.Fprintf(out, "%-22s NOT INSTALLED: %s\n", f.name, why)
			continue
		}
		results := f.play(ctx, program, logger)
		_, _ = fmt.Fprintf(out, "%-22s", f.name)
		for _, name := range frontCases {
			word := "ok"
			if err := results[name]; err != nil {
				word = "RED"
				reasons = append(reasons, fmt.Sprintf("RED %s %s: %v", f.name, name, err))
			}
			_, _ = fmt.Fprintf(out, " %-*s ", len(name), word)
		}
		_, _ = fmt.Fprintln(out)
	}
	_, _ = fmt.Fprintln(out, "ok: as docs/deployment.md says. bound: a proof that is bound to the connection, which holds where TLS does not end in between.")
	for _, reason := range reasons {
		_, _ = fmt.Fprintln(out, reason)
	}
	if len(reasons) > 0 {
		return errRed
	}
	return ctx.Err()
}

// find returns the program, or what is not installed.
func (f *front) find() (program, missing string) {
	program, err := exec.LookPath(f.program)
	if err != nil {
		return "", err.Error()
	}
	if f.module != "" && !isFile(f.module) {
		return "", f.module + " is not there"
	}
	return program, ""
}

const frontTime = time.Minute

// play plays all cases through a balancer of its own, in front of a host of its own.
func (f *front) play(ctx context.Context, program string, logger *slog.Logger) map[string]error {
	ctx, cancel := context.WithTimeout(ctx, frontTime)
	defer cancel()
	results := map[string]error{}
	s, err := newScene(ctx, f, program, logger)
	if err != nil {
		for _, name := range frontCases {
			results[name] = err
		}
		return results
	}
	defer s.close()
	results["bound"] = f.expectBound(s.enrol(ctx, false))
	results["unbound"] = s.enrol(ctx, true)
	results["unary"], results["stream"], results["error"] = s.call(ctx)
	results["address"] = s.addresses()
	return results
}

var errBoundPassed = errors.New("a bound proof was accepted although TLS ended in between")

// expectBound turns the outcome of a handshake with a bound proof into that of the case.
func (f *front) expectBound(err error) error {
	switch {
	case !f.ends:
		return err
	case err == nil:
		return errBoundPassed
	case !strings.Contains(err.Error(), "bound to this TLS connection"):
		return fmt.Errorf("the client does not say why: %w", err)
	}
	return nil
}
