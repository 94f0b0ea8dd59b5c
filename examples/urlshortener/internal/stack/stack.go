//go:build unix

// Package stack starts and stops the processes of the example.
package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/masegraye/connect-plugin-go/examples/internal/process"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener"
)

const (
	commands     = "github.com/masegraye/connect-plugin-go/examples/urlshortener/cmd/"
	console      = "github.com/masegraye/connect-plugin-go/console/cmd/connectpluginctl"
	operator     = "operator"
	startTimeout = 30 * time.Second
	ownerOnly    = 0o600
)

// Plugins are the self ids in the policy.
func Plugins() []string { return []string{"logger", "storage", "api", "shortener", "demo", operator} }

// Build builds the programs into a directory.
func Build(ctx context.Context, bin string) error {
	return process.Build(ctx, bin, commands+"host", commands+"logger", commands+"storage", commands+"api", commands+"shortener", console)
}

// Stack is a host and its plugins, each a process. Everything that they write
// lies in Dir. It is not safe for concurrent use; its owner calls Stop.
type Stack struct {
	// Dir is a directory for this stack alone, Bin where Build built.
	Dir, Bin string
	// Addr is where the host listens. Empty means a free port.
	Addr string
	// URL is the host's, and Metrics where it is scraped, once it was started.
	URL, Metrics string
	// Processes are those that were started, by name: of several, the last one.
	Processes map[string]*process.Process

	all []*process.Process
}

// PluginDir returns where the credentials of a plugin are.
func (s *Stack) PluginDir(name string) string { return filepath.Join(s.Dir, "plugins", name) }

// PolicyFile returns where Enrol wrote the policy.
func (s *Stack) PolicyFile() string { return filepath.Join(s.Dir, "policy.json") }

// Enrol makes an authority and the credentials of all plugins, and writes the
// policy.
func (s *Stack) Enrol(ctx context.Context) error {
	if err := os.WriteFile(s.PolicyFile(), urlshortener.Policy, ownerOnly); err != nil {
		return fmt.Errorf("enrol: %w", err)
	}

	_, err := process.Run(ctx, filepath.Join(s.Bin, "host"), append([]string{"-dir", s.Dir, "enrol"}, Plugins()...)...)

	return err
}

// Start starts a program of the stack and waits until it says something.
func (s *Stack) Start(ctx context.Context, name, says string, args ...string) (*process.Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}

	p, err := s.launch(name, args...)
	if err != nil {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	_, err = p.Await(ctx, says)

	return p, err
}

// LogFile returns where what a program writes is written to.
func (s *Stack) LogFile(name string) string { return filepath.Join(s.Dir, name+".log") }

// StartHost starts the host and waits until it is its own client.
func (s *Stack) StartHost(ctx context.Context) error {
	const says = "listening on "

	p, err := s.Start(ctx, "host", "the host passes on what plugins log",
		"-addr", cmp.Or(s.Addr, "127.0.0.1:0"), "-metrics", "127.0.0.1:0", "-dir", s.Dir, "-policy", s.PolicyFile())
	if err != nil {
		return err
	}

	line, err := p.Await(ctx, says)
	if err != nil {
		return err
	}

	s.URL = strings.TrimPrefix(line, says)

	line, err = p.Await(ctx, "scrapes are answered in plaintext")
	_, addr, _ := strings.Cut(line, "addr=")
	s.Metrics = "http://" + addr + "/metrics"

	return err
}

// ConsoleCommand is what an operator types to look at the host.
func (s *Stack) ConsoleCommand(args ...string) []string {
	dir := s.PluginDir(operator)

	return slices.Concat([]string{filepath.Join(s.Bin, "connectpluginctl")}, args,
		[]string{"--host", s.URL, "--credentials", dir, "--secret-file", filepath.Join(dir, "secret")})
}

// Console runs the command connectpluginctl to its end and returns what it printed.
func (s *Stack) Console(ctx context.Context, args ...string) (string, error) {
	command := s.ConsoleCommand(args...)

	return process.Run(ctx, command[0], command[1:]...)
}

// StartPage starts the page that shows the host, and returns a link to it, which works once.
func (s *Stack) StartPage(ctx context.Context) (string, error) {
	const says = "open "

	p, err := s.Start(ctx, "connectpluginctl", says, s.ConsoleCommand("page")[1:]...)
	if err != nil {
		return "", err
	}

	line, err := p.Await(ctx, says)

	return strings.TrimPrefix(line, says), err
}

// StartPlugin starts a plugin and waits until its service is registered.
func (s *Stack) StartPlugin(ctx context.Context, name string) error {
	_, err := s.Start(ctx, name, registered, s.pluginArgs(name)...)

	return err
}

// registered is what a plugin says when its service is.
const registered = "service registered"

// Shortener runs the command shortener to its end and returns what it printed.
func (s *Stack) Shortener(ctx context.Context, args ...string) (string, error) {
	args = append([]string{"-host", s.URL, "-dir", s.PluginDir("shortener")}, args...)

	return process.Run(ctx, filepath.Join(s.Bin, "shortener"), args...)
}

// Stop stops what runs, the host last. The error says what did not end well.
func (s *Stack) Stop() error {
	var errs []error

	for _, name := range slices.Backward(slices.Sorted(maps.Keys(s.Processes))) {
		if name != "host" {
			errs = append(errs, s.StopOne(name))
		}
	}

	return errors.Join(append(errs, s.StopOne("host"))...)
}

// StopOne stops one process if it runs.
func (s *Stack) StopOne(name string) error {
	p := s.Processes[name]
	if p == nil {
		return nil
	}

	delete(s.Processes, name)

	return p.Stop()
}

// Kill kills one process.
func (s *Stack) Kill(name string) {
	s.Processes[name].Kill()
	delete(s.Processes, name)
}

// Left returns how many processes that were started are there.
func (s *Stack) Left() int {
	n := 0

	for _, p := range s.all {
		if p.Left() {
			n++
		}
	}

	return n
}

// launch starts a program of the stack.
func (s *Stack) launch(name string, args ...string) (*process.Process, error) {
	log, err := os.OpenFile(s.LogFile(name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, ownerOnly)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}

	p, err := process.StartLogged(log, s.Dir, filepath.Join(s.Bin, name), args...)
	if err != nil {
		return nil, err
	}

	if s.Processes == nil {
		s.Processes = map[string]*process.Process{}
	}

	s.Processes[name] = p
	s.all = append(s.all, p)

	return p, nil
}

// pluginArgs are the arguments of a plugin.
func (s *Stack) pluginArgs(name string) []string {
	return []string{"-host", s.URL, "-dir", s.PluginDir(name)}
}
