//go:build unix

// Command play starts the host and a plugin in each language that is installed, has them call one another along every route,
// and prints what they say. It ends with exit code 1 if an answer differs or a process does not end well.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/internal/process"
	polyglotv1 "github.com/masegraye/connect-plugin-go/examples/polyglot/gen/polyglot/v1"
	"github.com/masegraye/connect-plugin-go/examples/polyglot/gen/polyglot/v1/polyglotv1connect"
)

const (
	programs = "github.com/masegraye/connect-plugin-go/examples/polyglot/"
	wait     = 30 * time.Second
	tryAgain = 100 * time.Millisecond
	selfID   = "play"
	text     = "hello"
)

// options say where the plugins are that Go does not build.
type options struct {
	node, nodePlugin, python, pythonPlugin string
}

func main() {
	var o options
	flag.StringVar(&o.node, "node", "node", "the program that runs JavaScript, Node 20 or later")
	flag.StringVar(&o.nodePlugin, "node-plugin", "polyglot/node/plugin.js", "the plugin in JavaScript, beside its packages")
	flag.StringVar(&o.python, "python", "python3", "the program that runs Python, with grpcio")
	flag.StringVar(&o.pythonPlugin, "python-plugin", "polyglot/python/plugin.py", "the plugin in Python")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := play(ctx, &o)

	stop()

	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// stages are what takes time once everything is built.
const stages = 4

func play(ctx context.Context, o *options) (err error) {
	dir, err := os.MkdirTemp("", "polyglot")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory

	bin := filepath.Join(dir, "bin")
	if err := process.Build(ctx, bin, programs+"host", programs+"goplugin"); err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, stages*wait)
	defer cancel()

	host, err := process.Start(dir, filepath.Join(bin, "host"), "-addr", "127.0.0.1:0", "-run", dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Stop()) }()

	const serving = "host is serving addr="

	line, err := host.Await(ctx, serving)
	if err != nil {
		return err
	}

	_, addr, _ := strings.Cut(line, serving)
	url := "https://" + addr
	commands := map[string][]string{"go": {filepath.Join(bin, "goplugin"), "-host", url, "-run", dir}}

	if err := o.others(ctx, commands, url, dir); err != nil {
		return err
	}

	languages, stop, err := startAll(dir, commands)
	if err == nil {
		err = call(ctx, url, dir, languages)
	}

	return errors.Join(err, stop())
}

// others adds the commands of the languages that are installed, and says which are not.
func (o *options) others(ctx context.Context, commands map[string][]string, url, dir string) error {
	for _, l := range []struct {
		language, program, plugin string
		check                     []string
		hint                      string
	}{
		{
			"node", o.node, o.nodePlugin,
			[]string{"--check", o.nodePlugin},
			"install Node 20 or later, build clients/node, and run npm install in polyglot/node",
		},
		{"python", o.python, o.pythonPlugin, []string{"-c", "import grpc, google.protobuf"}, "install Debian's python3-grpcio"},
	} {
		program, err := exec.LookPath(l.program)
		if err == nil {
			_, err = process.Run(ctx, program, l.check...)
		}

		if err != nil {
			fmt.Printf("no plugin in %s: %s (%v)\n", l.language, l.hint, err)
			continue
		}

		plugin, err := filepath.Abs(l.plugin)
		if err != nil {
			return err
		}

		commands[l.language] = []string{program, plugin, url, dir}
	}

	return nil
}

// startAll starts the plugins. What it returns stops them.
func startAll(dir string, commands map[string][]string) (languages []string, stop func() error, err error) {
	var started []*process.Process

	stop = func() error {
		errs := make([]error, 0, len(started))
		for _, p := range started {
			errs = append(errs, p.Stop())
		}

		return errors.Join(errs...)
	}

	for language, command := range commands {
		p, err := process.Start(dir, command[0], command[1:]...)
		if err != nil {
			return nil, stop, err
		}

		started = append(started, p)
		languages = append(languages, language)
	}

	slices.Sort(languages)

	return languages, stop, nil
}

// call sends a text along every route and compares what comes back.
func call(ctx context.Context, url, dir string, languages []string) error {
	tls, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: filepath.Join(dir, selfID)})
	if err != nil {
		return err
	}

	config := connectplugin.ClientConfig{HostURL: url, SelfID: selfID, TLS: tls}
	for _, language := range languages {
		config.Metadata.Requires = append(config.Metadata.Requires, connectplugin.ServiceDependency{Type: "relay." + language})
	}

	client, err := connectplugin.NewClient(config)
	if err != nil {
		return err
	}
	defer client.Leave(context.WithoutCancel(ctx)) //nolint:errcheck // the host ends next

	if err := client.Connect(ctx); err != nil {
		return err
	}

	for _, route := range routes(languages) {
		lines, err := relayed(ctx, client, route)
		if err != nil {
			return fmt.Errorf("%s: %w", strings.Join(route, " → "), err)
		}

		fmt.Printf("%-22s %s\n", strings.Join(route, " → "), strings.Join(lines, "; "))
	}

	return nil
}

// routes returns every way from language to language in which none comes twice.
func routes(languages []string) [][]string {
	var all [][]string

	for i, first := range languages {
		all = append(all, []string{first})

		for _, rest := range routes(slices.Delete(slices.Clone(languages), i, i+1)) {
			all = append(all, append([]string{first}, rest...))
		}
	}

	return all
}

var errDiffers = errors.New("the answer differs")

// relayed sends the text along a route, once each plugin of it is there.
func relayed(ctx context.Context, client *connectplugin.Client, route []string) ([]string, error) {
	conn, err := client.Service(ctx, "relay."+route[0], "1.0.0")
	if err != nil {
		return nil, err
	}
	defer conn.Close()

	relay := polyglotv1connect.NewRelayServiceClient(conn.HTTPClient(), conn.BaseURL(), connect.WithGRPC())

	for {
		resp, err := relay.Relay(ctx, &polyglotv1.RelayRequest{Route: route[1:], Text: text})
		if err == nil {
			return resp.GetLines(), compare(route, resp.GetLines())
		}

		if connect.CodeOf(err) != connect.CodeUnavailable {
			return nil, err
		}

		select { // a plugin of the route is still on its way
		case <-time.After(tryAgain):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func compare(route, lines []string) error {
	caller := selfID

	want := make([]string, 0, len(route))
	for _, language := range route {
		want = append(want, fmt.Sprintf("%s heard %q from %s", language, text, caller))
		caller = language
	}

	if !slices.Equal(lines, want) {
		return fmt.Errorf("%w: %q instead of %q", errDiffers, lines, want)
	}

	return nil
}
