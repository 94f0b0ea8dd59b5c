package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// The ways to the provider.
const (
	wayDirect = "direct" // net/http at both ends
	wayBare   = "bare"   // the same, with a bare reverse proxy between
	wayRouter = "router" // a caller on net/http, the host, a plugin
	wayUser   = "user"   // as a user has it: Client.Service, the host, a plugin
)

var ways = []string{wayDirect, wayBare, wayRouter, wayUser}

// The scenarios.
const (
	scenarioSmall  = "unary 256 B"
	scenarioLarge  = "unary 64 KiB"
	scenarioServer = "server stream"
	scenarioBidi   = "bidi stream"
)

const (
	heldStreams = 1000
	warmUp      = 300 * time.Millisecond
)

// plan is what is measured.
type plan struct {
	round    time.Duration
	rounds   int
	held     int // streams held open to measure their memory
	profiles string
	only     string
}

// stage is the processes, and how to reach the provider through them.
type stage struct {
	caller    *process
	servers   map[string]*process // those between caller and provider, by way
	providers map[string]*process // those that are called, by way
	targets   map[string]string   // base URL of each way
	all       []*process
}

func (p *plan) run(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s, err := newStage(ctx, filepath.Join(dir, "authority"))
	if err == nil {
		err = p.measure(s, out)
	}
	return errors.Join(err, s.end())
}

// newStage starts the processes. It returns what was started even if it fails.
func newStage(ctx context.Context, dir string) (*stage, error) {
	s := &stage{servers: map[string]*process{}, providers: map[string]*process{}, targets: map[string]string{}}
	if _, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{Dir: dir}); err != nil {
		return s, fmt.Errorf("authority: %w", err)
	}
	host, err := s.add(ctx, roleHost, "-dir", dir)
	if err != nil {
		return s, err
	}
	provider, err := s.add(ctx, roleProvider, "-dir", dir, "-host", host.url)
	if err != nil {
		return s, err
	}
	plain, err := s.add(ctx, rolePlain, "-dir", dir)
	if err != nil {
		return s, err
	}
	bare, err := s.add(ctx, roleProxy, "-dir", dir, "-provider", plain.url)
	if err != nil {
		return s, err
	}
	if s.caller, err = s.add(ctx, roleCaller, "-dir", dir, "-host", host.url); err != nil {
		return s, err
	}
	s.servers[wayBare], s.servers[wayRouter], s.servers[wayUser] = bare, host, host
	s.providers[wayDirect], s.providers[wayBare], s.providers[wayRouter], s.providers[wayUser] = plain, plain, provider, provider
	s.targets[wayDirect], s.targets[wayBare] = plain.url, bare.url
	// The caller's word is the provider's route, wherever it says that the host is.
	_, route, _ := strings.Cut(s.caller.url, "/services/")
	s.targets[wayRouter] = host.url + "/services/" + strings.TrimSuffix(route, "/")
	return s, nil
}

func (s *stage) add(ctx context.Context, role string, args ...string) (*process, error) {
	p, err := start(ctx, role, args...)
	if err != nil {
		return nil, err
	}
	s.all = append(s.all, p)
	return p, nil
}

// end ends the processes, those that call before those that are called.
func (s *stage) end() error {
	var errs []error
	for _, p := range slices.Backward(s.all) {
		errs = append(errs, p.end())
	}
	return errors.Join(errs...)
}

// measure makes the rows of the table and prints it.
func (p *plan) measure(s *stage, out io.Writer) error {
	t := table{held: p.held}
	for _, scenario := range []string{scenarioSmall, scenarioLarge, scenarioServer, scenarioBidi} {
		for _, callers := range []int{1, 32, 256} {
			name := fmt.Sprintf("%s x %d", scenario, callers)
			if !strings.Contains(name, p.only) {
				continue
			}
			r, err := p.row(s, scenario, callers)
			if err != nil {
				return err
			}
			fmt.Fprintln(os.Stderr, "measured", name)
			t.rows = append(t.rows, r)
		}
	}
	var err error
	if t.memory, err = p.holdStreams(s); err != nil {
		return err
	}
	t.print(out)
	return nil
}

// row measures one row: in each round every way in turn, beginning with another
// one each time.
func (p *plan) row(s *stage, scenario string, callers int) (row, error) {
	r := row{scenario: scenario, callers: callers, cells: map[string]*cell{}}
	for _, way := range ways {
		r.cells[way] = &cell{}
		if _, err := s.caller.tell(s.load(way, scenario, callers, warmUp)); err != nil {
			return r, err
		}
	}
	if err := p.profile(s, scenario, callers); err != nil {
		return r, err
	}
	for round := range p.rounds {
		for i := range ways {
			way := ways[(round+i)%len(ways)]
			if err := r.cells[way].measure(s, way, s.load(way, scenario, callers, p.round)); err != nil {
				return r, err
			}
		}
	}
	return r, p.endProfile(s)
}

// parts are the processes that a call of a way goes through, nil where there is none.
func (s *stage) parts(way string) [parts]*process {
	return [parts]*process{s.caller, s.servers[way], s.providers[way]}
}

func (s *stage) load(way, scenario string, callers int, d time.Duration) order {
	return order{Do: doLoad, Way: way, Target: s.targets[way], Scenario: scenario, Callers: callers, Time: d}
}

// profile starts the profiles of a row.
func (p *plan) profile(s *stage, scenario string, callers int) error {
	if p.profiles == "" {
		return nil
	}
	for way, server := range map[string]*process{
		wayBare: s.servers[wayBare], wayRouter: s.servers[wayRouter], "caller": s.caller, "provider": s.providers[wayUser],
	} {
		name := fmt.Sprintf("%s-%s-%d.pprof", way, strings.ReplaceAll(scenario, " ", "-"), callers)
		if _, err := server.tell(order{Do: doProfile, Path: filepath.Join(p.profiles, name)}); err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) endProfile(s *stage) error {
	if p.profiles == "" {
		return nil
	}
	for _, server := range []*process{s.servers[wayBare], s.servers[wayRouter], s.caller, s.providers[wayUser]} {
		if _, err := server.tell(order{Do: doProfile}); err != nil {
			return err
		}
	}
	return nil
}

// holdStreams returns the bytes that an open stream costs each server in between.
func (p *plan) holdStreams(s *stage) (map[string]int64, error) {
	memory := map[string]int64{}
	for _, way := range []string{wayBare, wayRouter} {
		before, err := s.servers[way].tell(order{Do: doMemory})
		if err != nil {
			return nil, err
		}
		if _, err := s.caller.tell(order{Do: doHold, Way: way, Target: s.targets[way], Callers: p.held}); err != nil {
			return nil, err
		}
		after, err := s.servers[way].tell(order{Do: doMemory})
		if err != nil {
			return nil, err
		}
		if _, err := s.caller.tell(order{Do: doRelease}); err != nil {
			return nil, err
		}
		memory[way] = (after.Memory - before.Memory) / int64(p.held)
	}
	return memory, nil
}
