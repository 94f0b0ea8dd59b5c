package main

import (
	"strconv"

	"google.golang.org/protobuf/compiler/protogen"
)

const (
	rootPackage     = protogen.GoImportPath(modulePath)
	delegatePackage = protogen.GoImportPath(modulePath + "/delegate")
	connectPackage  = protogen.GoImportPath("connectrpc.com/connect")
	contextPackage  = protogen.GoImportPath("context")
	fmtPackage      = protogen.GoImportPath("fmt")
	httpPackage     = protogen.GoImportPath("net/http")
	iterPackage     = protogen.GoImportPath("iter")
)

// pluginNames are the names of what a service has in its …plugin package.
type pluginNames struct {
	plugin, provide, serviceType, version string
}

// pluginNames names what the services of the package have. The types come first: what
// a service is called decides nothing about the type of another.
func (pkg *goPackage) pluginNames() (map[*declaration]*pluginNames, scope) {
	names, taken := map[*declaration]*pluginNames{}, scope{}
	for _, d := range pkg.all {
		names[d] = &pluginNames{plugin: taken.take(d.GoName + "Plugin")}
	}
	for _, d := range pkg.all {
		n := names[d]
		n.provide = taken.take("Provide" + d.GoName)
		n.serviceType = taken.take(d.GoName + "Type")
		n.version = taken.take(d.GoName + "Version")
	}
	return names, taken
}

// pluginFile makes the plugins of the services of a file.
func (pkg *goPackage) pluginFile(file *protogen.File) *source {
	names, taken := pkg.pluginNames()
	src := newSource(pkg.name+pluginSuffix, file.Desc.Path(), pkg.prefer, taken)
	src.doc = []string{
		"Package " + src.pkg + " has a plugin for each service of the protobuf package " + string(file.Desc.Package()) + ".",
	}
	for _, d := range pkg.of(file) {
		w := &pluginWriter{source: src, d: d, n: names[d], connect: pkg.connectPackage(file)}
		w.constants()
		w.metadata()
		w.server()
		w.client()
		w.provide()
	}
	return src
}

// pluginWriter writes the plugin of one service.
type pluginWriter struct {
	*source

	d       *declaration
	n       *pluginNames
	connect protogen.GoImportPath // of the generated Connect code
}

// handler is the interface of an implementation.
func (w *pluginWriter) handler() string { return w.ident(w.connect, w.d.GoName+"Handler") }

func (w *pluginWriter) constants() {
	w.p("const (")
	w.comment(w.n.serviceType + " is the type under which " + string(w.d.Desc.FullName()) + " is provided.")
	w.p(w.n.serviceType, " = ", strconv.Quote(w.d.serviceType))
	w.comment(w.n.version + " is its semantic version.")
	w.p(w.n.version, " = ", strconv.Quote(w.d.version))
	w.p(")")
	w.p()
}

func (w *pluginWriter) metadata() {
	plugin, metadata := w.n.plugin, w.ident(rootPackage, "PluginMetadata")
	w.comment(plugin + " is the plugin of the service " + string(w.d.Desc.FullName()) + ".")
	if deprecated(w.d.Desc) {
		w.comment("", "Deprecated: the service is marked so.")
	}
	w.p("type ", plugin, " struct{}")
	w.p()
	w.p("var _ ", w.ident(rootPackage, "Plugin"), " = (*", plugin, ")(nil)")
	w.p()
	w.comment("Metadata says what the plugin provides and requires.")
	w.p("func (*", plugin, ") Metadata() ", metadata, " {")
	w.p("return ", metadata, "{")
	w.p("Name: ", w.n.serviceType, ",")
	w.p("Path: ", strconv.Quote(w.d.path), ",")
	w.p("Version: ", w.n.version, ",")
	w.p("Provides: []", w.ident(rootPackage, "ServiceDeclaration"), "{")
	w.p("{Type: ", w.n.serviceType, ", Version: ", w.n.version, ", Path: ", strconv.Quote(w.d.path), "},")
	w.p("},")
	if len(w.d.requires) > 0 {
		w.p("Requires: []", w.ident(rootPackage, "ServiceDependency"), "{")
		for _, r := range w.d.requires {
			w.p("{Type: ", strconv.Quote(r.serviceType), ", MinVersion: ", strconv.Quote(r.minVersion),
				", RequiredForStartup: ", r.startup, ", WatchForChanges: ", r.watch, "},")
		}
		w.p("},")
	}
	w.p("}")
	w.p("}")
	w.p()
}

func (w *pluginWriter) server() {
	w.comment("ConnectServer makes the handler of an implementation, which is a ["+w.handler()+"].",
		"The error wraps ["+w.ident(rootPackage, "ErrInvalidPluginImpl")+"] where it is not.")
	w.p("func (*", w.n.plugin, ") ConnectServer(impl any) (string, ", w.ident(httpPackage, "Handler"), ", error) {")
	w.p("server, ok := impl.(", w.handler(), ")")
	w.p("if !ok {")
	w.p("return \"\", nil, ", w.ident(fmtPackage, "Errorf"), "(\"%w: %T is no ", w.handler(), "\", ",
		w.ident(rootPackage, "ErrInvalidPluginImpl"), ", impl)")
	w.p("}")
	w.p("path, handler := ", w.ident(w.connect, "New"+w.d.GoName+"Handler"), "(server, ", w.compression(), ")")
	w.p("return path, handler, nil")
	w.p("}")
	w.p()
}

// compression is the option with which short messages are not compressed.
func (w *pluginWriter) compression() string {
	return w.ident(connectPackage, "WithCompressMinBytes") + "(" + w.ident(rootPackage, "CompressMinBytes") + ")"
}

func (w *pluginWriter) client() {
	w.comment("ConnectClient makes a client of the service at baseURL, a [" + w.ident(w.connect, w.d.GoName+"Client") + "].")
	w.p("func (*", w.n.plugin, ") ConnectClient(baseURL string, httpClient ", w.ident(connectPackage, "HTTPClient"), ") (any, error) {")
	w.p("return ", w.ident(w.connect, "New"+w.d.GoName+"Client"), "(httpClient, baseURL), nil")
	w.p("}")
	w.p()
}

func (w *pluginWriter) provide() {
	service := w.ident(rootPackage, "PluginService")
	w.comment(w.n.provide + " makes of an implementation what [" + w.ident(rootPackage, "ServePlugin") + "] serves.")
	if deprecated(w.d.Desc) {
		w.comment("", "Deprecated: the service is marked so.")
	}
	w.p("func ", w.n.provide, "(impl ", w.handler(), ", opts ...", w.ident(connectPackage, "HandlerOption"), ") ", service, " {")
	w.p("opts = append([]", w.ident(connectPackage, "HandlerOption"), "{", w.compression(), "}, opts...)")
	w.p("path, handler := ", w.ident(w.connect, "New"+w.d.GoName+"Handler"), "(impl, opts...)")
	w.p("return ", service, "{Type: ", w.n.serviceType, ", Version: ", w.n.version, ", Path: path, Handler: handler}")
	w.p("}")
	w.p()
}
