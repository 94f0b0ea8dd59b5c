package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"

	optionsv1 "github.com/masegraye/connect-plugin-go/gen/connectplugin/options/v1"
	"github.com/masegraye/connect-plugin-go/internal/semrange"
)

const (
	defaultVersion = "1.0.0"

	// The library's bounds of what a plugin declares, in bytes. This program does not import the
	// library, which needs generated code to compile; a test compares the two.
	maxTypeLen    = 128
	maxVersionLen = 64
	maxPathLen    = 1024
)

// declaration is what the plugin of a service says of itself.
type declaration struct {
	*protogen.Service

	serviceType string
	version     string
	path        string
	requires    []dependency
}

// declare decides what the plugins of the services of one Go package declare.
func declare(services []*protogen.Service, p *params) ([]*declaration, error) {
	var all []*declaration
	derived := deriveTypes(services)
	for _, s := range services {
		name := string(s.Desc.FullName())
		d := &declaration{
			Service:     s,
			serviceType: derived[s],
			version:     cmp.Or(p.versions[name], p.versions[""], defaultVersion),
			path:        "/" + name + "/",
			requires:    slices.Concat(p.requires[""], p.requires[name]),
		}
		d.applyOptions(p)
		d.serviceType = cmp.Or(p.types[name], d.serviceType)
		if err := d.validate(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if i := slices.IndexFunc(all, func(o *declaration) bool { return o.serviceType == d.serviceType }); i >= 0 {
			return nil, fmt.Errorf("%s: type %q is that of %s; set the parameter type=%s:TYPE", name, d.serviceType, all[i].Desc.FullName(), name)
		}
		all = append(all, d)
	}
	return all, nil
}

// deriveTypes makes a service type of each service's name: lower case, without
// Service at the end where that leaves a name that no other has.
func deriveTypes(services []*protogen.Service) map[*protogen.Service]string {
	short := func(s *protogen.Service) string {
		name := strings.ToLower(strings.TrimLeft(string(s.Desc.Name()), "_"))
		return cmp.Or(strings.TrimRight(strings.TrimSuffix(name, "service"), "_"), name)
	}
	long := func(s *protogen.Service) string { return strings.ToLower(strings.TrimLeft(string(s.Desc.Name()), "_")) }
	taken := map[string]int{}
	for _, s := range services {
		taken[short(s)]++
	}
	types := make(map[*protogen.Service]string, len(services))
	for _, s := range services {
		if types[s] = short(s); taken[types[s]] > 1 {
			types[s] = long(s)
		}
	}
	return types
}

// applyOptions takes what the .proto file says where no parameter says it.
func (d *declaration) applyOptions(p *params) {
	options, ok := proto.GetExtension(d.Desc.Options(), optionsv1.E_Plugin).(*optionsv1.ServicePlugin)
	if !ok || options == nil {
		return
	}
	name := string(d.Desc.FullName())
	d.serviceType = cmp.Or(options.GetType(), d.serviceType)
	d.version = cmp.Or(p.versions[name], options.GetVersion(), d.version)
	if len(p.requires[name]) > 0 {
		return
	}
	for _, r := range options.GetRequires() {
		d.requires = append(d.requires, dependency{
			serviceType: r.GetType(), minVersion: r.GetMinVersion(), startup: r.GetRequiredForStartup(), watch: r.GetWatchForChanges(),
		})
	}
}

// validate demands what the library demands of a plugin's metadata.
func (d *declaration) validate() error {
	if err := validateType(d.serviceType); err != nil {
		return err
	}
	if _, err := semrange.ParseVersion(d.version); err != nil || len(d.version) > maxVersionLen {
		return fmt.Errorf("version %q is not a semantic version such as 1.2.3", d.version)
	}
	if len(d.path) > maxPathLen {
		return fmt.Errorf("the path has %d bytes, at most %d are allowed", len(d.path), maxPathLen)
	}
	seen := map[string]bool{}
	for _, r := range d.requires {
		if err := validateType(r.serviceType); err != nil {
			return fmt.Errorf("requires: %w", err)
		}
		constraint, err := semrange.ParseConstraint(r.minVersion)
		if err != nil {
			return fmt.Errorf("requires %s: %w", r.serviceType, err)
		}
		if r.startup && r.serviceType == d.serviceType && constraint.Allows(d.version) {
			return fmt.Errorf("requires %s for its start, which it provides itself, so that it would wait for itself; "+
				"take startup away, or name the service that requires it: the parameter requires=SERVICE:%s;startup", r.serviceType, r.serviceType)
		}
		if seen[r.serviceType] {
			return fmt.Errorf("requires %s twice", r.serviceType)
		}
		seen[r.serviceType] = true
	}
	return nil
}

var errTypeEmpty = errors.New("the service type is empty; set the parameter type")

func validateType(s string) error {
	if s == "" {
		return errTypeEmpty
	}
	if len(s) > maxTypeLen {
		return fmt.Errorf("the service type has %d bytes, at most %d are allowed; set the parameter type", len(s), maxTypeLen)
	}
	for i := range len(s) {
		c := s[i]
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alphanumeric && (i == 0 || !strings.ContainsRune("._-", rune(c))) {
			return fmt.Errorf("the service type %q may only contain letters, digits, '.', '_' and '-', and starts with a letter or digit", s)
		}
	}
	return nil
}

func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
