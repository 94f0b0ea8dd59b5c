// Command protoc-gen-connect-plugin is a plugin of buf and protoc. For each Go package
// with services it generates two more, beside what protoc-gen-connect-go generates:
//
//   - …plugin: each service as a connectplugin.Plugin, for a PluginSet, and as a
//     connectplugin.PluginService, for ServePlugin;
//   - …delegate: each service as a plain Go interface, with the fields of a request as
//     parameters and streams as iterators, and a client that implements it.
//
// README.md has its parameters and shows what it makes.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/pluginpb"
)

const (
	program    = "protoc-gen-connect-plugin"
	modulePath = "github.com/masegraye/connect-plugin-go"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program; it returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { _, _ = fmt.Fprintf(stderr, usage, program) }
	version := flags.Bool("version", false, "")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	switch {
	case *version:
		_, _ = fmt.Fprintln(stdout, program, buildVersion())
		return 0
	case flags.NArg() > 0:
		flags.Usage()
		return 2
	}
	warn := func(line string) { _, _ = fmt.Fprintf(stderr, "%s: warning: %s\n", program, line) }
	if err := answer(stdin, stdout, warn); err != nil {
		_, _ = fmt.Fprintf(stderr, "%s: %v\n", program, err)
		return 1
	}
	return 0
}

// answer reads a request of protoc and writes the response. What is wrong with a .proto
// file or a parameter is in the response, as protoc wants it.
func answer(stdin io.Reader, stdout io.Writer, warn func(line string)) error {
	in, err := io.ReadAll(stdin)
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	req := &pluginpb.CodeGeneratorRequest{}
	if err := proto.Unmarshal(in, req); err != nil {
		return fmt.Errorf("standard input is no request of buf or protoc: %w", err)
	}
	out, err := proto.MarshalOptions{Deterministic: true}.Marshal(respond(req, warn))
	if err != nil {
		return fmt.Errorf("response: %w", err)
	}
	if _, err := stdout.Write(out); err != nil {
		return fmt.Errorf("write the response: %w", err)
	}
	return nil
}

// buildVersion is the version of the module that the program was built from.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	if info.Main.Path == modulePath {
		return info.Main.Version
	}
	for _, dep := range info.Deps {
		if dep.Path == modulePath {
			return dep.Version
		}
	}
	return "(devel)"
}
