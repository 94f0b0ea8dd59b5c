package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The cases that the configuration yields. A run of another number tests
// something else than it should.
const (
	clientCases = 1348
	serverCases = 1116
)

// foreignVerbs is how many cases of server mode call with a method that no RPC
// uses, one for each protocol: the router answers them itself.
const foreignVerbs = 3

// neverSent is how many calls may be missing: a client that cancels at once may do
// so before its request leaves it.
const neverSent = 20

// Outcomes of calls, as the router logs them.
const (
	outcomeOK       = "ok"
	outcomeCanceled = "canceled"
	outcomeRefused  = "refused"
)

var (
	errCases = errors.New("not every case passed")
	errCalls = errors.New("calls did not go through the router")

	totalPattern  = regexp.MustCompile(`(?m)^Total cases: (\d+)$`)
	passedPattern = regexp.MustCompile(`(?m)^(\d+) passed, (\d+) failed$`)
)

// run runs the suite in all modes.
func run(ctx context.Context, programs, config string, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("executable: %w", err)
	}
	var errs []error
	for _, m := range []mode{
		{name: "client", suiteMode: "client", cases: clientCases},
		{name: "server", suiteMode: "server", cases: serverCases, refusals: foreignVerbs},
		{name: "launched", suiteMode: "server", cases: serverCases, refusals: foreignVerbs},
	} {
		m.self, m.programs, m.config, m.args = self, programs, config, args
		if err := m.run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s mode: %w", m.name, err))
		}
	}
	return errors.Join(errs...)
}

// mode is one run of the suite: with a client or a server under test.
type mode struct {
	name      string
	suiteMode string // what the runner calls it
	cases     int
	refusals  int // calls that the router answers itself
	self      string
	programs  string
	config    string
	args      []string // further ones for the runner
}

func (m *mode) run(ctx context.Context) error {
	tallies, err := os.MkdirTemp("", "tallies")
	if err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(tallies) }()
	start := time.Now()
	output, runErr := m.suite(ctx, tallies)
	sum, err := loadCounts(tallies)
	if err != nil {
		return errors.Join(runErr, err)
	}
	passed, total, err := outcome(output)
	if err != nil {
		return errors.Join(runErr, err)
	}
	fmt.Printf("%s mode: %d of %d cases passed in %v\n", m.name, passed, total, time.Since(start).Round(time.Second/10)) //nolint:mnd // tenths
	fmt.Printf("    through the router: %d calls received, %d routed, %d answered by the server; outcomes: %s; refused: %s\n",
		sum.Received, sum.Routed, sum.Answered, list(sum.Outcomes), list(sum.Refused))
	return errors.Join(runErr, m.judge(passed, total, sum))
}

// suite runs the suite's runner and returns what it printed.
func (m *mode) suite(ctx context.Context, tallies string) ([]byte, error) {
	args := slices.Concat([]string{"--conf", m.config, "--mode", m.suiteMode}, m.args,
		[]string{"--", m.self, m.name, "-programs", m.programs, "-tallies", tallies})
	var output bytes.Buffer
	runner := filepath.Join(m.programs, "connectconformance")
	cmd := exec.CommandContext(ctx, runner, args...) //nolint:gosec // a program that make built
	cmd.Stdout = io.MultiWriter(os.Stdout, &output)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return output.Bytes(), fmt.Errorf("runner: %w", err)
	}
	return output.Bytes(), nil
}

// judge demands that all cases passed, each with a call that went through the
// router and broke off there for no other reason than that the caller did.
func (m *mode) judge(passed, total int, sum counts) error {
	if len(m.args) > 0 {
		return nil // a selection of cases
	}
	var errs []error
	if passed != m.cases || total != m.cases {
		errs = append(errs, fmt.Errorf("%w: %d of %d, want %d", errCases, passed, total, m.cases))
	}
	if sum.Routed != sum.Received || sum.Routed < m.cases-neverSent {
		errs = append(errs, fmt.Errorf("%w: %d received, %d routed, want %d", errCalls, sum.Received, sum.Routed, m.cases))
	}
	through := sum.Outcomes[outcomeOK] + sum.Outcomes[outcomeCanceled]
	if through != sum.Routed-m.refusals || sum.Outcomes[outcomeRefused] != m.refusals {
		errs = append(errs, fmt.Errorf("%w: %s", errCalls, list(sum.Outcomes)))
	}
	return errors.Join(errs...)
}

// outcome reads the counts that the runner printed.
func outcome(output []byte) (passed, total int, err error) {
	t, p := totalPattern.FindSubmatch(output), passedPattern.FindSubmatch(output)
	if t == nil || p == nil {
		return 0, 0, fmt.Errorf("%w: the runner printed no count", errCases)
	}
	total, totalErr := strconv.Atoi(string(t[1]))
	passed, passedErr := strconv.Atoi(string(p[1]))
	return passed, total, errors.Join(totalErr, passedErr)
}

// list shows counts by name.
func list(counts map[string]int) string {
	if len(counts) == 0 {
		return "none"
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[name], name))
	}
	return strings.Join(parts, ", ")
}
