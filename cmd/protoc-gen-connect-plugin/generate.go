package main

import (
	"fmt"
	"path"
	"slices"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// The ends of the names of the generated packages.
const (
	pluginSuffix   = "plugin"
	delegateSuffix = "delegate"
)

// respond answers a request of buf or protoc. What may be wrong with it goes to warn.
func respond(req *pluginpb.CodeGeneratorRequest, warn func(line string)) *pluginpb.CodeGeneratorResponse {
	p := newParams()
	gen, err := protogen.Options{ParamFunc: p.set}.New(req)
	if err != nil {
		return &pluginpb.CodeGeneratorResponse{Error: new(err.Error())}
	}
	gen.SupportedFeatures = uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL) |
		uint64(pluginpb.CodeGeneratorResponse_FEATURE_SUPPORTS_EDITIONS)
	gen.SupportedEditionsMinimum = descriptorpb.Edition_EDITION_PROTO2
	gen.SupportedEditionsMaximum = descriptorpb.Edition_EDITION_2024
	warnings, err := p.unknownService(gen)
	if err == nil {
		err = generate(gen, p)
	}
	if err != nil {
		gen.Error(err)
		return gen.Response()
	}
	for _, line := range warnings {
		warn(line)
	}
	return gen.Response()
}

// goPackage is a Go package of .pb.go files with services, and what is the same for
// all that is generated of it.
type goPackage struct {
	params *params
	name   string
	files  []*protogen.File // those with services that are to be generated
	all    []*declaration
	prefer map[protogen.GoImportPath]string // what packages are called in imports
}

// generate writes the packages of every Go package with services.
func generate(gen *protogen.Plugin, p *params) error {
	written := map[string]string{}
	for _, pkg := range packagesOf(gen, p) {
		if err := pkg.declare(); err != nil {
			return err
		}
		for i, file := range pkg.files {
			for _, src := range []*source{pkg.pluginFile(file), pkg.delegateFile(file)} {
				if i > 0 {
					src.doc = nil // One file has it for the package.
				}
				name, importPath := pkg.target(file, src.pkg)
				if other, ok := written[name]; ok {
					return fmt.Errorf("%s and %s would both be %s; generate them apart, or without layout=flat", other, src.from, name)
				}
				written[name] = src.from
				content, err := src.format()
				if err != nil {
					return err
				}
				if _, err := gen.NewGeneratedFile(name, importPath).Write(content); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
		}
	}
	return nil
}

// packagesOf returns the packages in the order in which their files are to be
// generated.
func packagesOf(gen *protogen.Plugin, p *params) []*goPackage {
	prefer := map[protogen.GoImportPath]string{rootPackage: "connectplugin"}
	for _, f := range gen.Files {
		prefer[f.GoImportPath] = string(f.GoPackageName)
	}
	byPath := map[protogen.GoImportPath]*goPackage{}
	var packages []*goPackage
	for _, f := range gen.Files {
		if !f.Generate || len(f.Services) == 0 {
			continue
		}
		pkg, ok := byPath[f.GoImportPath]
		if !ok {
			pkg = &goPackage{params: p, name: string(f.GoPackageName), prefer: prefer}
			byPath[f.GoImportPath] = pkg
			packages = append(packages, pkg)
		}
		pkg.files = append(pkg.files, f)
	}
	return packages
}

func (pkg *goPackage) declare() error {
	var services []*protogen.Service
	for _, f := range pkg.files {
		services = append(services, f.Services...)
	}
	var err error
	pkg.all, err = declare(services, pkg.params)
	return err
}

// of returns what a file of the package declares.
func (pkg *goPackage) of(file *protogen.File) []*declaration {
	return slices.DeleteFunc(slices.Clone(pkg.all), func(d *declaration) bool { return d.Desc.ParentFile() != file.Desc })
}

// target says where a file of a generated package lies.
func (pkg *goPackage) target(file *protogen.File, generated string) (string, protogen.GoImportPath) {
	kind := generated[len(pkg.name):]
	dir, base := path.Split(file.GeneratedFilenamePrefix)
	name := path.Join(generated, base+"."+kind+".go")
	if pkg.params.flat {
		return name, protogen.GoImportPath(generated)
	}
	return path.Join(dir, name), protogen.GoImportPath(path.Join(string(file.GoImportPath), generated))
}

// connectPackage is where protoc-gen-connect-go puts the code of a file.
func (pkg *goPackage) connectPackage(file *protogen.File) protogen.GoImportPath {
	if pkg.params.suffix == "" {
		return file.GoImportPath
	}
	return protogen.GoImportPath(path.Join(string(file.GoImportPath), pkg.name+pkg.params.suffix))
}
