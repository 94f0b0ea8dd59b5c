package main

import (
	"errors"
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
		if version == "" {
			return fmt.Errorf("%s=%s: write a semantic version such as 1.2.3", name, value)
		}
		p.versions[service] = version
	case "type":
		service, serviceType := splitService(value)
		if service == "" || serviceType == "" {
			return fmt.Errorf("%s=%s: name the service and its type, for example %s=kv.v1.KVService:kv", name, value, name)
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

// named are the services that parameters name, each with the parameter.
func (p *params) named() (all [][2]string) {
	for _, names := range []struct {
		parameter string
		services  []string
	}{{"type", keys(p.types)}, {"version", keys(p.versions)}, {"requires", keys(p.requires)}} {
		for _, service := range names.services {
			if service != "" {
				all = append(all, [2]string{names.parameter, service})
			}
		}
	}
	return all
}

// unknownService returns an error for a parameter about a service that is not there, or lines that warn of it where it may be
// elsewhere: buf runs a plugin once for each directory, with the same parameters, and does not say so; protoc, which tells its
// version, runs it once.
func (p *params) unknownService(gen *protogen.Plugin) (warnings []string, err error) {
	whole := gen.Request.GetCompilerVersion() != nil
	known := servicesOf(gen.Files)
	for _, named := range p.named() {
		parameter, service := named[0], named[1]
		if known.services[service] {
			continue
		}
		text := fmt.Sprintf("%s=%s: there is no such service", parameter, service)
		meant := known.meant(service)
		full := protoreflect.FullName(service).IsValid() && strings.Contains(service, ".")
		switch elsewhere := full && !known.packages[string(protoreflect.FullName(service).Parent())]; {
		case len(meant) > 0 && (!elsewhere || whole):
			return nil, fmt.Errorf("%s; write %s", text, strings.Join(meant, " or "))
		case !full:
			return nil, fmt.Errorf("%s; write its full name, for example kv.v1.KVService", text)
		case !elsewhere || whole:
			return nil, errors.New(text)
		default:
			warnings = append(warnings, text+" in these files; buf looks for it in each directory: with strategy: all it looks once")
		}
	}
	return warnings, nil
}

// known is what there is in the files of a request.
type known struct{ packages, services map[string]bool }

func servicesOf(files []*protogen.File) known {
	k := known{map[string]bool{}, map[string]bool{}}
	for _, f := range files {
		k.packages[string(f.Desc.Package())] = true
		for _, s := range f.Services {
			k.services[string(s.Desc.FullName())] = true
		}
	}
	return k
}

// meant are the services that somebody may have meant who wrote another name: of the same last name.
func (k known) meant(name string) []string {
	var meant []string
	for _, service := range keys(k.services) {
		if strings.EqualFold(string(protoreflect.FullName(service).Name()), string(protoreflect.FullName(name).Name())) {
			meant = append(meant, service)
		}
	}
	return meant
}
