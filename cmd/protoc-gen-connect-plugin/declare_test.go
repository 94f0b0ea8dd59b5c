package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	optionsv1 "github.com/masegraye/connect-plugin-go/gen/connectplugin/options/v1"
	"github.com/masegraye/connect-plugin-go/gen/loggerv1delegate"
	"github.com/masegraye/connect-plugin-go/gen/loggerv1plugin"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// protoFile is a file of the package p with services of these names, the first of
// them with options.
func protoFile(options *optionsv1.ServicePlugin, services ...string) *descriptorpb.FileDescriptorSet {
	f := &descriptorpb.FileDescriptorProto{
		Name: new("p.proto"), Package: new("p"), Syntax: new("proto3"),
		Options: &descriptorpb.FileOptions{GoPackage: new("example.com/p;p")},
	}
	for i, name := range services {
		s := &descriptorpb.ServiceDescriptorProto{Name: new(name)}
		if i == 0 && options != nil {
			s.Options = &descriptorpb.ServiceOptions{}
			proto.SetExtension(s.GetOptions(), optionsv1.E_Plugin, options)
		}
		f.Service = append(f.Service, s)
	}
	return &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{f}}
}

// declared is a plugin that declares what the generator would write.
type declared struct {
	connectplugin.Plugin

	*declaration
}

func (d declared) Metadata() connectplugin.PluginMetadata {
	m := connectplugin.PluginMetadata{Name: d.serviceType, Path: d.path, Version: d.version, Provides: []connectplugin.ServiceDeclaration{
		{Type: d.serviceType, Version: d.version, Path: d.path},
	}}
	for _, r := range d.requires {
		m.Requires = append(m.Requires, connectplugin.ServiceDependency{
			Type: r.serviceType, MinVersion: r.minVersion, RequiredForStartup: r.startup, WatchForChanges: r.watch,
		})
	}
	return m
}

// declarations returns what is declared for the only package of a request.
func declarations(t testing.TB, set *descriptorpb.FileDescriptorSet, parameter string) ([]*declaration, error) {
	t.Helper()
	p := newParams()
	gen, err := protogen.Options{ParamFunc: p.set}.New(request(set, parameter))
	if err != nil {
		return nil, err
	}
	return declare(gen.Files[len(gen.Files)-1].Services, p)
}

// libraryAccepts validates as the library does what plugins say about themselves.
func libraryAccepts(all []*declaration) error {
	set := connectplugin.PluginSet{}
	for _, d := range all {
		if _, twice := set[d.serviceType]; twice {
			return fmt.Errorf("two plugins are called %s", d.serviceType)
		}
		set[d.serviceType] = declared{declaration: d}
		if err := errors.Join(connectplugin.ValidateEndpointPath(d.path), connectplugin.ValidateVersion(d.version)); err != nil {
			return err
		}
	}
	return set.Validate()
}

// Whatever services are called and parameters say, what is generated passes the
// library's validation, or nothing is generated.
func TestAudit_H59_DeclarationsPassValidation(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("Long", 50)
	for name, tt := range map[string]struct {
		services  []string
		parameter string
		options   *optionsv1.ServicePlugin
		types     string // "" where it is refused
		refused   string
	}{
		"plain":                         {services: []string{"Logger"}, types: "logger"},
		"suffix":                        {services: []string{"KVService"}, types: "kv"},
		"only the suffix":               {services: []string{"Service"}, types: "service"},
		"leading underscores":           {services: []string{"__Hidden_Service"}, types: "hidden"},
		"digits":                        {services: []string{"_2fa"}, types: "2fa"},
		"the same without suffix":       {services: []string{"KV", "KVService"}, types: "kv,kvservice"},
		"the same in lower case":        {services: []string{"Kv", "KV"}, refused: "type=p.KV:TYPE"},
		"only underscores":              {services: []string{"___"}, refused: "type is empty"},
		"underscores, told":             {services: []string{"___"}, parameter: "type=p.___:under", types: "under"},
		"too long":                      {services: []string{long}, refused: "at most 128"},
		"too long, told":                {services: []string{long}, parameter: "type=p." + long + ":short", types: "short"},
		"path too long":                 {services: []string{strings.Repeat("L", 1022)}, parameter: "type=p." + strings.Repeat("L", 1022) + ":l", refused: "path"},
		"version":                       {services: []string{"L"}, parameter: "version=1.2", types: "l"},
		"no version":                    {services: []string{"L"}, parameter: "version=latest", refused: `"latest"`},
		"constraint for a version":      {services: []string{"L"}, parameter: "version=^1.2.0", refused: "^1.2.0"},
		"version too long":              {services: []string{"L"}, parameter: "version=1.2.3-" + strings.Repeat("a", 64), refused: "semantic version"},
		"slash in the type":             {services: []string{"L"}, parameter: "type=p.L:a/b", refused: "a/b"},
		"dots":                          {services: []string{"L"}, parameter: "type=p.L:..", refused: `".."`},
		"other letters":                 {services: []string{"L"}, parameter: "type=p.L:lögger", refused: "letters"},
		"requires":                      {services: []string{"L"}, parameter: "requires=a@>=1 <2,requires=p.L:b;watch", types: "l"},
		"requires nothing":              {services: []string{"L"}, parameter: "requires=@1.0", refused: "empty"},
		"requires itself for its start": {services: []string{"L", "M"}, parameter: "requires=l;startup", refused: "requires=SERVICE:l;startup"},
		"requires another of itself":    {services: []string{"L"}, parameter: "version=2.0.0,requires=l@^1;startup", types: "l"},
		"requires itself, later":        {services: []string{"L"}, parameter: "requires=l;watch", types: "l"},
		"itself in options": {
			services: []string{"L"}, refused: "wait for itself",
			options: &optionsv1.ServicePlugin{Version: "1.5.0", Requires: []*optionsv1.Dependency{{Type: "l", MinVersion: "1.2", RequiredForStartup: true}}},
		},
		"requires twice":           {services: []string{"L"}, parameter: "requires=a,requires=p.L:a", refused: "twice"},
		"no constraint":            {services: []string{"L"}, parameter: "requires=a@newest", refused: "requires a"},
		"options":                  {services: []string{"L"}, options: &optionsv1.ServicePlugin{Type: "x", Version: "v2"}, types: "x"},
		"wrong version in options": {services: []string{"L"}, options: &optionsv1.ServicePlugin{Version: "two"}, refused: `"two"`},
		"parameters win":           {services: []string{"L"}, options: &optionsv1.ServicePlugin{Type: "/", Version: "two"}, parameter: "type=p.L:l,version=p.L:2.0", types: "l"},
		"wrong dependency in options": {
			services: []string{"L"}, options: &optionsv1.ServicePlugin{Requires: []*optionsv1.Dependency{{Type: "a b"}}}, refused: "a b",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := protoFile(tt.options, tt.services...)
			all, err := declarations(t, set, tt.parameter)
			if tt.types == "" {
				if err == nil || !strings.Contains(err.Error(), tt.refused) {
					t.Fatalf("declares %v, %v; want an error that says %q", all, err, tt.refused)
				}
				if res := ask(t, request(set, tt.parameter)); res.Error == nil || len(res.GetFile()) > 0 {
					t.Errorf("generates %d files, %v", len(res.GetFile()), res.Error)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var types []string
			for _, d := range all {
				types = append(types, d.serviceType)
			}
			if got := strings.Join(types, ","); got != tt.types {
				t.Errorf("types %s, want %s", got, tt.types)
			}
			if err := libraryAccepts(all); err != nil {
				t.Errorf("the library refuses it: %v", err)
			}
		})
	}
}

// FuzzDeclarations finds declarations of which the generator and the library think
// differently.
func FuzzDeclarations(f *testing.F) {
	f.Add("logger", "1.0.0", "storage", ">=1.2, <2")
	f.Add("a/b", "v1", "..", "latest")
	f.Add("-x", "01.2", "é", "1.x || 2")
	f.Fuzz(func(t *testing.T, serviceType, version, required, constraint string) {
		for _, s := range []string{serviceType, version, required, constraint} {
			if s == "" || strings.ToValidUTF8(s, "") != s {
				t.Skip("an option that is no text, or says nothing")
			}
		}
		options := &optionsv1.ServicePlugin{Type: serviceType, Version: version, Requires: []*optionsv1.Dependency{{Type: required, MinVersion: constraint}}}
		all, err := declarations(t, protoFile(options, "L"), "")
		d := &declaration{serviceType: serviceType, version: version, path: "/p.L/", requires: []dependency{{serviceType: required, minVersion: constraint}}}
		library := libraryAccepts([]*declaration{d})
		if (err == nil) != (library == nil) {
			t.Errorf("the generator says %v, the library %v of %v", err, library, all)
		}
	})
}

// recorder is a Logger that keeps what it was told.
type recorder struct {
	mu   sync.Mutex
	last *loggerv1.LogRequest
}

func (r *recorder) Log(_ context.Context, req *connect.Request[loggerv1.LogRequest]) (*connect.Response[loggerv1.LogResponse], error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = req.Msg
	return connect.NewResponse(&loggerv1.LogResponse{}), nil
}

// The plugin that is generated here is provided to others and dispensed by a host,
// over TLS, and called through its plain interface.
func TestAudit_H59_GeneratedPluginServes(t *testing.T) {
	t.Parallel()
	plugin, own, types := &loggerv1plugin.LoggerPlugin{}, &recorder{}, []string{loggerv1plugin.LoggerType}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Plugins = connectplugin.PluginSet{loggerv1plugin.LoggerType: plugin}
		c.Impls = map[string]any{loggerv1plugin.LoggerType: own}
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"provider": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = types }),
			"caller":   hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires, p.HostPlugins = types, types }),
		}}
	})
	provided := &recorder{}
	host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
		c.Client.Metadata = plugin.Metadata()
		c.Services = []connectplugin.PluginService{loggerv1plugin.ProvideLogger(provided)}
	})
	client := host.Enrol(t, "caller", func(c *connectplugin.ClientConfig) {
		c.Metadata.Requires = hosttest.Requires(loggerv1plugin.LoggerType)
		c.Plugins = connectplugin.PluginSet{loggerv1plugin.LoggerType: plugin}
	})
	conn, err := client.Service(t.Context(), loggerv1plugin.LoggerType, loggerv1plugin.LoggerVersion)
	if err != nil {
		t.Fatal(err)
	}
	dispensed, err := connectplugin.DispenseTyped[loggerv1connect.LoggerClient](client, loggerv1plugin.LoggerType)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		client loggerv1connect.LoggerClient
		to     *recorder
	}{{loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL()), provided}, {dispensed, own}} {
		if err := loggerv1delegate.New(tt.client).Log(t.Context(), "info", "hello", map[string]string{"k": "v"}); err != nil {
			t.Fatal(err)
		}
		want := &loggerv1.LogRequest{Level: "info", Message: "hello", Fields: map[string]string{"k": "v"}}
		tt.to.mu.Lock()
		if !proto.Equal(tt.to.last, want) {
			t.Errorf("got %v, want %v", tt.to.last, want)
		}
		tt.to.mu.Unlock()
	}
}
