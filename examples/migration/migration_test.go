//go:build unix

// Package migration_test runs programs that were written for the library before.
package migration_test

import (
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/examples/internal/process"
	"github.com/masegraye/connect-plugin-go/examples/internal/processtest"
)

const serving = "host is serving addr="

// The programs work once the two fields are filled in, in plaintext over HTTP/1.1 and over
// TLS, and refuse without them in words that say what to write.
func TestMigration(t *testing.T) {
	t.Parallel()

	p := processtest.Build(t, "migration/host", "migration/plugin", "migration/client")

	for _, tt := range []struct{ fields, scheme string }{{"open", "http://"}, {"secure", "https://"}} {
		_, line := p.Start("migration/host", serving, "-addr", "127.0.0.1:0", "-fields", tt.fields)
		use(t, p, tt.scheme+after(line), tt.fields, "name is Ada\nHello, Ada!")

		_, line = p.Start("migration/host", serving, "-addr", "127.0.0.1:0", "-fields", tt.fields, "-mounted")
		use(t, p, tt.scheme+after(line), tt.fields, "Hello, Ada!", "-dispense=false")
	}

	refuse(t, p)
}

// use runs the plugin and the client against a host.
func use(t *testing.T, p *processtest.Programs, host, fields, want string, args ...string) {
	t.Helper()

	plugin, _ := p.Start("migration/plugin", "service registered", "-host", host, "-fields", fields)

	if out, ok := p.Run("migration/client", append([]string{"-host", host, "-fields", fields}, args...)...); !ok || out != want {
		t.Errorf("at %s, fields %s: the client said %q; the plugin said:\n%s", host, fields, out, plugin.Output())
	}
}

// refuse starts programs that lack what is new.
func refuse(t *testing.T, p *processtest.Programs) {
	t.Helper()

	// A host of a mux starts, and says what it lacks; so does one without a policy.
	unruled, line := p.Start("migration/host", serving, "-addr", "127.0.0.1:0", "-fields", "insecure")
	mounted, mountedLine := p.Start("migration/host", serving, "-addr", "127.0.0.1:0", "-mounted")

	for _, host := range []*process.Process{unruled, mounted} {
		if _, err := host.Await(t.Context(), "no policy: no plugin is accepted until ServeConfig.Policy allows it"); err != nil {
			t.Error(err)
		}
	}

	for _, tt := range []struct {
		program string
		args    []string
		says    []string
	}{
		{"host", []string{"-addr", "127.0.0.1:0"}, []string{"set TLS to", "AllowInsecure: true"}},
		{"plugin", nil, []string{"HostURL", "https://", "AllowInsecure"}},
		{"client", nil, []string{"Endpoint", "https://", "AllowInsecure"}},
		{"plugin", []string{"-host", "http://" + after(line), "-fields", "open"}, []string{`does not accept self id "greeter"`}},
		{"plugin", []string{"-host", "http://" + after(mountedLine), "-fields", "open"}, []string{"AllowInsecure"}},
	} {
		_, err := process.Run(t.Context(), p.Path("migration/"+tt.program), tt.args...)
		if err == nil {
			t.Errorf("%s %v did not refuse", tt.program, tt.args)

			continue
		}

		for _, text := range tt.says {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s %v said %v, without %q", tt.program, tt.args, err, text)
			}
		}
	}
}

func after(line string) string {
	_, addr, _ := strings.Cut(line, serving)

	return addr
}
