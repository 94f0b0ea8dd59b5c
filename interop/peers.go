package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/masegraye/connect-plugin-go/interop/echo"
)

// peer is a library, or a tool, in one of the two parts.
type peer struct {
	name    string
	command []string          // of its process; a caller's gets the case as one more argument
	env     []string          // beside this process's own
	checks  [][]string        // commands that succeed where it is installed, the first tells its version
	own     bool              // it is a plugin of this library and enrols itself
	without map[string]string // cases that it cannot play, and why
}

// missing returns what is not installed, empty where all is.
func (p *peer) missing(ctx context.Context) string {
	for _, check := range p.checks {
		if _, err := p.output(ctx, check); err != nil {
			return strings.Join(check, " ") + ": " + err.Error()
		}
	}
	return ""
}

// version is the first line of what the first check says.
func (p *peer) version(ctx context.Context) string {
	if len(p.checks) == 0 {
		return "as go.mod says"
	}
	out, err := p.output(ctx, p.checks[0])
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

func (p *peer) output(ctx context.Context, args []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // the commands are those below
	cmd.Env = append(os.Environ(), p.env...)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", args[0], err)
	}
	return out, nil
}

// without names cases that a peer has no means to play.
func without(why string, cases ...string) map[string]string {
	m := make(map[string]string, len(cases))
	for _, c := range cases {
		m[c] = why
	}
	return m
}

// all but the named cases.
func allBut(why string, but ...string) map[string]string {
	m := without(why, echo.Cases()...)
	for _, c := range but {
		delete(m, c)
	}
	return m
}

// world is the peers that there are.
type world struct {
	providers, callers map[string]*peer
	order              [2][]string // their names
}

// The command lines of the peers.
const (
	flagServe   = "-serve"
	flagCall    = "-call"
	flagCase    = "-case"
	flagVersion = "--version"
	node        = "node"
)

const noTool = "the tool has no means for it"

func newWorld(self, peers, cache string) *world {
	w := &world{providers: map[string]*peer{}, callers: map[string]*peer{}}
	for _, name := range []string{peerOurs, peerConnectGo, peerGRPCGo} {
		w.provider(&peer{name: name, command: []string{self, flagServe, name}, own: name == peerOurs})
	}
	for _, name := range []string{peerOurs, peerConnectGo, peerConnectGo + overGRPC, peerConnectGo + overWeb, peerGRPCGo} {
		w.caller(&peer{name: name, command: []string{self, flagCall, name, flagCase}, own: name == peerOurs})
	}
	w.addPython(peers)
	w.addNode(peers, cache)
	w.addTools(self)
	return w
}

func (w *world) provider(p *peer) {
	w.providers[p.name] = p
	w.order[0] = append(w.order[0], p.name)
}

func (w *world) caller(p *peer) {
	w.callers[p.name] = p
	w.order[1] = append(w.order[1], p.name)
}

func (w *world) addPython(peers string) {
	const python = "/usr/bin/python3" // Debian's, for which python3-grpcio is
	script := filepath.Join(peers, "grpcio", "echo.py")
	p := peer{name: peerGRPCIO, checks: [][]string{{python, "-c", "import grpc, sys; print('grpcio', grpc.__version__)"}}}
	s, c := p, p
	s.command = []string{python, script, "serve"}
	c.command = []string{python, script, "call"}
	w.provider(&s)
	w.caller(&c)
}

func (w *world) addNode(peers, cache string) {
	modules := filepath.Join(cache, node, "node_modules")
	add := func(name, program, library string, protocols ...string) {
		script := filepath.Join(peers, node, program+".js")
		p := peer{
			name: name, env: []string{"NODE_PATH=" + modules},
			checks: [][]string{{node, "-e", "console.log('node', process.version, '" + library + "', JSON.parse(require('fs').readFileSync('" +
				filepath.Join(modules, library, "package.json") + "')).version)"}},
		}
		s := p
		s.command = []string{node, script, "serve"}
		w.provider(&s)
		for _, protocol := range protocols {
			c := p
			c.name = name + protocol
			c.command = []string{node, script, "call" + protocol}
			w.caller(&c)
		}
	}
	add(peerGRPCJS, "grpcjs", "@grpc/grpc-js", "")
	add(peerNode, "connectnode", "@connectrpc/connect-node", "", overGRPC, overWeb)
}

func (w *world) addTools(self string) {
	curl := [][]string{{"curl", flagVersion}}
	load := [][]string{{"h2load", flagVersion}}
	w.caller(&peer{
		name: peerCurl, command: []string{self, flagCall, peerCurl, flagCase}, checks: curl,
		without: without(noTool, echo.CaseBidi, echo.CaseStreams, echo.CaseSilence),
	})
	w.caller(&peer{
		name: peerH2Load, command: []string{self, flagCall, peerH2Load, flagCase}, checks: load,
		without: allBut(noTool, echo.CaseStreams),
	})
	// nghttpd serves files, which curl and h2load fetch.
	files := allBut("it serves files only", echo.CaseUnary, echo.CaseDetails, echo.CaseStreams, echo.CaseLarge, echo.CaseKill)
	w.provider(&peer{
		name: peerNghttpd, command: []string{self, flagServe, peerNghttpd}, without: files,
		checks: [][]string{{"nghttpd", flagVersion}, curl[0], load[0]},
	})
	w.callers[peerNghttpd] = &peer{name: peerNghttpd, command: []string{self, flagCall, peerNghttpd, flagCase}}
}
