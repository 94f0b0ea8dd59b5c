package main

import (
	"fmt"
	"go/token"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// params are the parameters of one run. Maps are by the full name of a service; the
// empty name stands for all of them.
type params struct {
	suffix   string // of the packages of protoc-gen-connect-go
	simple   bool
	flat     bool
	types    map[string]string
	versions map[string]string
	requires map[string][]dependency
}

// dependency is a service type that an implementation calls.
type dependency struct {
	serviceType    string
	minVersion     string
	startup, watch bool
}

func newParams() *params {
	return &params{
		suffix: "connect", types: map[string]string{}, versions: map[string]string{}, requires: map[string][]dependency{},
	}
}

// set takes one parameter of the command line.
func (p *params) set(name, value string) error {
	switch name {
	case "simple":
		return setSwitch(&p.simple, name, value)
	case "package_suffix":
		if !token.IsIdentifier("x" + value) {
			return fmt.Errorf("%s=%s: is no part of a package's name", name, value)
		}
		p.suffix = value
	case "layout":
		if value != "flat" && value != "nested" {
			return fmt.Errorf("%s=%s: write flat or nested", name, value)
		}
		p.flat = value == "flat"
	case "version":
		service, version := splitService(value)
		p.versions[service] = version
	case "type":
		service, serviceType := splitService(value)
		if service == "" {
			return fmt.Errorf("%s=%s: name the service, for example %s=kv.v1.KVService:kv", name, value, name)
		}
		p.types[service] = serviceType
	case "requires":
		service, rest := splitService(value)
		d, err := parseDependency(rest)
		if err != nil {
			return fmt.Errorf("%s=%s: %w", name, value, err)
		}
		p.requires[service] = append(p.requires[service], d)
	default:
		return fmt.Errorf("%s: is no parameter; %s -h lists them", name, program)
	}
	return nil
}

func setSwitch(to *bool, name, value string) error {
	switch value {
	case "", "true":
		*to = true
	case "false":
		*to = false
	default:
		return fmt.Errorf("%s=%s: write true or false", name, value)
	}
	return nil
}

// splitService splits SERVICE:rest. Neither types nor versions have a colon.
func splitService(value string) (service, rest string) {
	if service, rest, ok := strings.Cut(value, ":"); ok {
		return service, rest
	}
	return "", value
}

// parseDependency reads TYPE[@MINIMUM][;startup][;watch].
func parseDependency(s string) (dependency, error) {
	parts := strings.Split(s, ";")
	var d dependency
	d.serviceType, d.minVersion, _ = strings.Cut(parts[0], "@")
	for _, part := range parts[1:] {
		switch part {
		case "startup":
			d.startup = true
		case "watch":
			d.watch = true
		default:
			return d, fmt.Errorf("%q is neither startup nor watch", part)
		}
	}
	return d, nil
}

// unknownService returns an error for a parameter about a service that its package
// does not have. Of packages that are not there nothing is known: buf runs a plugin
// once for each directory, with the same parameters.
func (p *params) unknownService(files []*protogen.File) error {
	packages, services := map[string]bool{}, map[string]bool{"": true}
	for _, f := range files {
		packages[string(f.Desc.Package())] = true
		for _, s := range f.Services {
			services[string(s.Desc.FullName())] = true
		}
	}
	check := func(parameter, service string) error {
		if parent := string(protoreflect.FullName(service).Parent()); services[service] || !packages[parent] {
			return nil
		}
		return fmt.Errorf("%s=%s: there is no such service", parameter, service)
	}
	for _, names := range []struct {
		parameter string
		services  []string
	}{{"type", keys(p.types)}, {"version", keys(p.versions)}, {"requires", keys(p.requires)}} {
		for _, service := range names.services {
			if err := check(names.parameter, service); err != nil {
				return err
			}
		}
	}
	return nil
}
