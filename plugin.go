package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/semrange"
)

// Plugin describes one plugin interface: how its implementation is served and
// how its client is made. Implementations are stateless values shared by
// goroutines.
type Plugin interface {
	// Metadata names the plugin and what it provides and requires.
	Metadata() PluginMetadata
	// ConnectServer makes the handler of an implementation and the path under
	// which it is mounted, as the generated New…Handler functions do.
	ConnectServer(impl any) (path string, handler http.Handler, error error)
	// ConnectClient makes a client that reaches the plugin at baseURL.
	ConnectClient(baseURL string, httpClient connect.HTTPClient) (any, error)
}

// PluginMetadata says what a plugin is called, what it provides and requires.
type PluginMetadata struct {
	// Name is the plugin's name, for people.
	Name string
	// Path is the path under which its service is served, for example
	// "/kv.v1.KVService/".
	Path string
	// Version is the semantic version of the plugin.
	Version string
	// Provides lists the service types that it offers to other plugins.
	Provides []ServiceDeclaration
	// Requires lists the service types that it calls.
	Requires []ServiceDependency
}

// ServiceDeclaration is one service type that a plugin provides.
type ServiceDeclaration struct {
	// Type names the service, for example "logger".
	Type string
	// Version is the semantic version of the service.
	Version string
	// Path is where the plugin serves it, for example "/logger.v1.Logger/". A name
	// without slashes means that name between two.
	Path string
}

// ServiceDependency is one service type that a plugin requires.
type ServiceDependency struct {
	// Type names the service.
	Type string
	// MinVersion is a constraint on the version, in spite of its name: "1.2"
	// accepts 1.2.0 and every later version, also 2.0.0, and ">=1.2, <2", "^1.4"
	// or "1.x || 3.x" what they say. Empty accepts any.
	MinVersion string
	// RequiredForStartup says that the plugin cannot start without it, in a version that
	// MinVersion accepts. Until then it is unhealthy, for a reason that names what it waits for.
	// One that provides such a version itself would wait for itself, and is refused.
	RequiredForStartup bool
	// WatchForChanges says that the plugin follows the service's state: it is degraded while
	// nobody provides it in a version that MinVersion accepts.
	WatchForChanges bool
}

// clone returns a copy that shares no memory with m.
func (m PluginMetadata) clone() PluginMetadata {
	m.Provides = slices.Clone(m.Provides)
	m.Requires = slices.Clone(m.Requires)
	return m
}

// validate checks what the metadata declares; field prefixes the error.
func (m PluginMetadata) validate(field string) error {
	for i, d := range m.Provides {
		if err := d.validate(); err != nil {
			return fieldError(fmt.Sprintf("%s.Provides[%d]", field, i), "%v", err)
		}
	}
	for i, d := range m.Requires {
		if err := d.validate(); err != nil {
			return fieldError(fmt.Sprintf("%s.Requires[%d]", field, i), "%v", err)
		}
	}
	return m.validateStart(field, m.Provides)
}

// validateStart refuses a plugin that could not start before it had started.
func (m PluginMetadata) validateStart(field string, provides []ServiceDeclaration) error {
	for i, d := range m.Requires {
		constraint, err := semrange.ParseConstraint(d.MinVersion)
		if !d.RequiredForStartup || err != nil {
			continue
		}
		if slices.ContainsFunc(provides, func(own ServiceDeclaration) bool { return own.Type == d.Type && constraint.Allows(own.Version) }) {
			return fieldError(fmt.Sprintf("%s.Requires[%d].RequiredForStartup", field, i),
				"%q is what the plugin provides itself, so that it would wait for itself; take RequiredForStartup away, "+
					"or require a version that it does not provide", d.Type)
		}
	}
	return nil
}

// validateOnce refuses what a host refuses of whoever enrols: a type that is there twice, and constraints that have too much
// together.
func (m PluginMetadata) validateOnce(field string) error {
	for i, d := range m.Provides {
		if slices.ContainsFunc(m.Provides[:i], func(o ServiceDeclaration) bool { return o.Type == d.Type }) {
			return fieldError(fmt.Sprintf("%s.Provides[%d].Type", field, i),
				"%q is there twice; a plugin provides a type once, in one version", d.Type)
		}
	}
	var constraints semrange.Together
	for i, d := range m.Requires {
		if slices.ContainsFunc(m.Requires[:i], func(o ServiceDependency) bool { return o.Type == d.Type }) {
			return fieldError(fmt.Sprintf("%s.Requires[%d].Type", field, i),
				"%q is there twice; write it once, with one MinVersion such as \">=1.2, <3\" or \"1.x || 3.x\"", d.Type)
		}
		if _, err := constraints.Parse(d.MinVersion); errors.Is(err, semrange.ErrTooMuch) {
			return fieldError(fmt.Sprintf("%s.Requires[%d].MinVersion", field, i), "%v; write shorter ones", err)
		}
	}
	return nil
}

func (d ServiceDeclaration) validate() error {
	if err := ValidateServiceType(d.Type); err != nil {
		return err
	}
	if err := ValidateVersion(d.Version); err != nil {
		return err
	}
	if d.Path == "" {
		return nil
	}
	return ValidateEndpointPath(servicePath(d.Path))
}

// text is the requirement in words.
func (d ServiceDependency) text() string { return strings.TrimSpace(d.Type + " " + d.MinVersion) }

func (d ServiceDependency) validate() error {
	if err := ValidateServiceType(d.Type); err != nil {
		return err
	}
	_, err := semrange.ParseConstraint(d.MinVersion)
	return err
}

// PluginSet maps names to plugins. The zero value is empty. It is read
// concurrently and must not change once it was given to a host or a client.
type PluginSet map[string]Plugin

// Get returns the plugin of a name.
func (s PluginSet) Get(name string) (Plugin, bool) {
	p, ok := s[name]
	return p, ok && p != nil
}

// Keys returns the names in sorted order.
func (s PluginSet) Keys() []string {
	keys := make([]string, 0, len(s))
	for name := range s {
		keys = append(keys, name)
	}
	slices.Sort(keys)
	return keys
}

// Validate returns [ErrEmptyPluginSet] for an empty set and an error that names
// the entry for a nil plugin, an empty name, a name other than that in the plugin's
// metadata (which may name none), a path that another plugin has, or metadata that this
// library would not accept from a plugin.
func (s PluginSet) Validate() error {
	if len(s) == 0 {
		return ErrEmptyPluginSet
	}
	if err := s.validateEntries(); err != nil {
		return err
	}
	paths := make(map[string]string, len(s))
	for _, name := range s.Keys() {
		field, m := fmt.Sprintf("Plugins[%q]", name), s[name].Metadata()
		if m.Name != "" && m.Name != name {
			return fieldError(field, "the plugin's metadata names it %q; use that as the key", m.Name)
		}
		path := servicePath(m.Path)
		if other, ok := paths[path]; ok && path != "" {
			return fieldError(field+".Metadata.Path", "%q is the path of %q too; give each plugin a path of its own", m.Path, other)
		}
		paths[path] = name
	}
	return nil
}

// validateEntries checks each entry for itself. That is enough for a client, which may
// know one interface under several names.
func (s PluginSet) validateEntries() error {
	for _, name := range s.Keys() {
		field := fmt.Sprintf("Plugins[%q]", name)
		if strings.TrimSpace(name) == "" {
			return fieldError(field, "a plugin needs a name")
		}
		p, ok := s.Get(name)
		if !ok {
			return fieldError(field, "the plugin is nil")
		}
		if err := p.Metadata().validate(field + ".Metadata"); err != nil {
			return err
		}
	}
	return nil
}

// isPort reports whether a URL may have a port; empty is that of its scheme.
func isPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

// listenPort returns the port of an address to listen on, or what is wrong with that.
func listenPort(addr string) (string, error) {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = net.DefaultResolver.LookupPort(context.Background(), "tcp", port) // which asks nobody
	}
	if err != nil {
		return "", fmt.Errorf("%q is no host:port, write for example \"127.0.0.1:8443\": %w", addr, err)
	}
	return port, nil
}
